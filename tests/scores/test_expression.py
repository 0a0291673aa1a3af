"""Score expressions equal numpy's results, and anything outside the grammar is rejected."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.errors import UserError
from d2prune.scores.expression import parse

A, B = np.array([0.1, 0.2, -0.3], np.float32), np.array([3, 1, 2], np.int64)


def value(text, **columns):
    columns = columns or {"a": A, "b": B}
    return parse(text, "score.difficulty").evaluate(columns, 3)


def test_arithmetic_is_float64_with_the_usual_precedence():
    a, b = A.astype(np.float64), B.astype(np.float64)
    assert value("a").tolist() == a.tolist()
    assert value("0.5*a + 0.5*b").tolist() == (0.5 * a + 0.5 * b).tolist()
    assert value("a - b / 2 * -a").tolist() == (a - b / 2 * -a).tolist()
    assert value("(a - b) - (+a)").tolist() == ((a - b) - a).tolist()
    assert value("max(a, b, 1.5)").tolist() == [3, 1.5, 2]
    assert value("min(abs(a), sqrt(b))").tolist() == np.minimum(abs(a), np.sqrt(b)).tolist()
    assert value("1e3 * a").tolist() == (1e3 * a).tolist()
    assert value("  a +\t1 ").tolist() == (a + 1).tolist()


def test_quoted_column_names():
    columns = {"sim l14": A, "a-b": B, "0": A, "max": B}
    expected = (A.astype(np.float64) + B).tolist()
    assert parse("`sim l14` + `a-b`", "x").columns == ("sim l14", "a-b")
    assert value("`sim l14` + `a-b`", **columns).tolist() == expected
    assert value("\"sim l14\"+'a-b'", **columns).tolist() == expected
    assert value("`0` + `max`", **columns).tolist() == expected
    assert value("max(max, `0`)", **columns).tolist() == np.maximum(B, A.astype(np.float64)).tolist()
    # A name that looks like the internal placeholder of a quoted name.
    assert value("quoted0_ + `a-b`", quoted0_=A, **{"a-b": B}).tolist() == expected


def test_undefined_score_is_not_finite():
    assert np.isinf(value("1 / (a - a)")).all()
    assert np.isnan(value("sqrt(a)")[2])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.real",
        "a[0]",
        "a ** 2",
        "a // 2",
        "a % 2",
        "lambda: a",
        "[a for a in b]",
        "a if b else a",
        "a and b",
        "a < b",
        "True * a",
        "1j * a",
        "f'{a}'",
        "eval(a)",
        "log(a)",
        "max(a)",
        "abs(a, b)",
        "max(a, b, key=a)",
        "max(*a, b)",
        "(a := b)",
        "~a",
        "not a",
        "a, b",
        "...",
        "9" * 400 + "* a",
    ],
)
def test_text_outside_the_grammar_is_rejected(text):
    with pytest.raises(UserError, match=r"^score\.difficulty: .* expected numbers, column names") as error:
        parse(text, "score.difficulty")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["a +", "(a", "a b", "`a` `b`", "a = 1", "a; b", "`a", "\0", "-" * 999 + "a", "a\nb"]
)
def test_syntax_error_is_a_one_line_error(text):
    # Python's default limit: torch's compiler raises it for the rest of the process.
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        with pytest.raises(UserError, match="is not a score") as error:
            parse(text, "score.difficulty")
    finally:
        sys.setrecursionlimit(before)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "what"), [("", "1 to 1000"), ("a+" * 600 + "a", "1 to 1000"), ("1 + 2", "no column")]
)
def test_empty_long_and_constant_expressions_are_rejected(text, what):
    with pytest.raises(UserError, match=what):
        parse(text, "score.difficulty")


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab01.+-*/()`'\" ,minmaxsqrt_\n\t[]=:"), max_size=30))
def test_any_text_is_parsed_or_rejected(text):
    try:
        parsed = parse(text, "o")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert parsed.evaluate({name: A for name in parsed.columns}, 3).shape == (3,)
