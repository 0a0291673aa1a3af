"""Text to plain values: the core schema of YAML 1.2, and what is refused, in one line."""

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.config.yaml_text import YamlError, read_document, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("+7", 7),
        ("-0", 0),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e400", math.inf),
        ("-.inf", -math.inf),
        ("0b11", "0b11"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        ("nan", "nan"),
        ("inf", "inf"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("\u0663", "\u0663"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = read_scalar(text)
    assert (found, type(found)) == (value, type(value))
    if text not in ("", "<<"):
        assert read_document(f"key: {text}").value == {"key": value}
        assert read_document(f"key: '{text}'").value == {"key": text}


def test_nan_is_a_number():
    assert math.isnan(read_scalar(".nan")) and math.isnan(read_scalar(".NaN"))


_LONG = f"a: {'1' * 5000}"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "key a is given twice, in lines 1 and 3; expected it once", None),
        ("a:\n  b: 1\n  b: 2\n", "key a.b is given twice, in lines 2 and 3", None),
        ("a: {b: [{c: 1, 'c': 2}]}", "key a.b.0.c is given twice, in lines 1 and 1", None),
        ("a: !!python/object:os.system x", "a: found the tag !!python/object:os.system", 1),
        ("a: !!python/object/apply:os.system [x]", "a: found the tag !!python/object/apply:os.system", 1),
        ("a: !!str 5", "a: found the tag !!str; expected a plain value", 1),
        ("!!str a: 5", "found the tag !!str as a key", 1),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "c: found a merge key (<<); expected the keys themselves", 3),
        ("1: a", "found 1 as a key; expected text, in quotes if need be", 1),
        ("null: a", "found null as a key", 1),
        ("true: a", "found true as a key", 1),
        ("? [a]\n: b", "found a sequence as a key", 1),
        ("? {a: 1}\n: b", "found a mapping as a key", 1),
        ("&a a: 1\n*a : 2", "found a alias as a key", 2),
        ("a: 1\n---\nb: 2", "found a second document; expected one", 2),
        ("a: &x [*x]", "found the alias *x before its anchor is complete", 1),
        ("a: *x", "found the alias *x before its anchor is complete", 1),
        (_BOMB, "found aliases that expand to more than 500,000 values", 6),
        ("[" * 10_000, "found values nested more than 20 deep", 1),
        ("{a: " * 10_000, "found values nested more than 20 deep", 1),
        ("\n".join(" " * i + "a:" for i in range(100)), "nested more than 20 deep", 21),
        (_LONG, "a: found a number of 5000 digits; expected at most 100", 1),
        ("a: 1\n\tb: 2", "found character '\\t' that cannot start any token", 2),
        ("a: 1\nb: \x00", "found the character '\\x00'; expected printable text", 2),
        ("a: \x1b[31m", "found the character '\\x1b'", 1),
        ("%YAML 3.0\n---\na: 1", "found incompatible YAML document", 1),
        ("a: [1, 2", "expected ',' or ']', but got '<stream end>'", 1),
        ("a: 'x", "found unexpected end of stream", 1),
        ("- a\nb: 1", "but found '?'", 2),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_refused_is_one_line_with_its_place(text, problem, line):
    started = time.perf_counter()
    with pytest.raises(YamlError) as caught:
        read_document(text)
    assert problem in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.line == line
    assert time.perf_counter() - started < 5


def test_an_alias_is_a_copy_of_its_anchor():
    value = read_document("a: &x {b: [1]}\nc: *x").value
    assert value == {"a": {"b": [1]}, "c": {"b": [1]}} and value["a"]["b"] is not value["c"]["b"]


def test_lines_are_recorded_by_path():
    lines = read_document("a: 1\nb:\n  - x\n  - c:\n      4\n").lines
    assert (lines["a",], lines["b",], lines["b", 1], lines["b", 1, "c"]) == (1, 2, 4, 4)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_no_document_is_null(text):
    assert read_document(text).value is None


@pytest.mark.parametrize("text", ["a #b", "a --- b #c", "[1] # c", "'x' # y", "# c"])
def test_a_comment_after_an_override_is_refused(text):
    with pytest.raises(YamlError, match="found a comment"):
        read_document(text, comments=False)
    read_document(text)


# A key of YAML has up to 1,024 characters, and a character of JSON up to 12.
_KEYS = st.text(max_size=80)
_TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(_TREES, st.booleans())
@settings(max_examples=75, deadline=None)
def test_json_is_read_as_json(tree, ascii_only):
    """JSON is YAML 1.2. PyYAML refuses control characters outside of escapes, which json escapes."""
    text = json.dumps(tree, ensure_ascii=True if ascii_only else not _is_printable(tree))
    assert read_document(text).value == tree


def _is_printable(tree):
    return all(char.isprintable() for char in json.dumps(tree, ensure_ascii=False))
