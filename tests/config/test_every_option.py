"""Every option of the model with every kind of wrong value: accepted, or one line that says what is."""

import math

import pytest
from pydantic import BaseModel

from d2prune.config import messages
from d2prune.config.model import RunConfig
from d2prune.d2.gamma import EXPECTED
from d2prune.errors import UserError

BASE = {"input": "a", "work_dir": "w", "output": "o", "select": {"fraction": 0.3}}
VALUES = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "10**30": 10**30,
    "10**400": 10**400,
    "10**5000": 10**5000,
    "1e30": 1e30,
    "negative": -1,
    "zero": 0,
    "-0.0": -0.0,
    "half": 0.5,
    "tiny": 5e-324,
    "one": 1,
    "float one": 1.0,
    "true": True,
    "false": False,
    "null": None,
    "text": "abc",
    "number in quotes": "5",
    "empty text": "",
    "blank": " ",
    "long text": "x" * 100_000,
    "NUL": "a\0b",
    "ESC": "a\x1b[31mb",
    "newline": "a\nb",
    "surrogate": "a\ud83d",
    "list": [],
    "list of lists": [[1]],
    "list of texts": ["a", "b"],
    "mapping": {},
    "mapping of numbers": {"a": 1},
    "mapping with ESC": {"a\x1b": "number"},
    "deep": {"a": {"b": {"c": {}}}},
    "bytes": b"abc",
    "object": object(),
}


# Options whose value may be refused for the value of another one.
JOINT = ("select.drop_fraction", "select.size", "select.min_score", "graph.nprobe", "graph.n_neighbors")


def list_options():
    for name, field in RunConfig.model_fields.items():
        kind = field.annotation
        yield name, field
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from ((f"{name}.{key}", inner) for key, inner in kind.model_fields.items())


OPTIONS = dict(list_options())


def with_value(name, value):
    section, _, key = name.partition(".")
    if not key:
        return BASE | {name: value}
    given = dict(BASE.get(section, {}))
    if name in ("select.size", "select.min_score"):
        given = {}
    return BASE | {section: given | {key: value}}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_value_is_accepted_or_refused_in_one_line(name):
    gamma = name.startswith("select.gamma")
    expected = EXPECTED if gamma else messages.describe_type(messages.field_type(OPTIONS[name]))
    accepted = []
    for label, value in VALUES.items():
        try:
            RunConfig.parse(with_value(name, value), "run.yaml")
        except UserError as error:
            text = str(error)
            assert text.isprintable() and len(text) < 700, (label, text[:300])
            assert text.startswith("run.yaml: ") and name.split(".")[-1] in text, (label, text)
            if isinstance(value, int | float) and not isinstance(value, bool) and "number" in expected:
                joint = name in JOINT
                assert expected in text or joint or "expected a fraction of one GPU" in text, (label, text)
        else:
            accepted.append(label)
    numeric = {"nan", "inf", "-inf", "10**30", "10**400", "10**5000"} & set(accepted)
    assert numeric <= ({"10**30"} if gamma or name == "filter.max_aspect_ratio" else set())
    if "text" not in expected:
        assert not {"text", "long text", "NUL"} & set(accepted)
        assert "number in quotes" not in accepted or gamma
    if "true or false" not in expected:
        assert not {"true", "false"} & set(accepted)
    assert not {"long text", "NUL", "ESC", "newline", "surrogate", "object", "bytes"} & set(accepted)


@pytest.mark.parametrize(
    "values", [{1: 2}, {None: 1}, {"select": {1: 2}}, {("a",): 1}, {"embed": {"fields": {1: "text"}}}]
)
def test_keys_that_are_not_text(values):
    with pytest.raises(UserError) as caught:
        RunConfig.parse(BASE | values, "run.yaml")
    assert str(caught.value).isprintable()


def test_a_value_that_contains_itself():
    loop: dict[str, object] = {}
    loop["a"] = loop
    for name in ("embed", "select", "input", "embed.fields", "embed.models"):
        with pytest.raises(UserError) as caught:
            RunConfig.parse(with_value(name, loop), "run.yaml")
        assert str(caught.value).isprintable()


def test_ranges_in_words():
    words = {name: messages.describe_type(messages.field_type(field)) for name, field in OPTIONS.items()}
    assert words["graph.n_neighbors"] == "a whole number from 0 to 1,024"
    assert words["select.fraction"] == "a number above 0 and up to 1, or null"
    assert words["select.drop_fraction"] == "a number at least 0 and below 1"
    assert words["score.offset"] == "a number above -2**22 and below 2**22, or auto"
    assert words["embed.batch_size"] == "a whole number from 1 to 65,536, or auto"
    assert words["embed.fields"] == "a mapping of names to number or text"
    assert words["embed.compile"] == "true or false"
    assert words["input"] == "text, or a list of text"
    assert words["graph.seed"] == "a whole number from 0 to 2**63 - 1"
