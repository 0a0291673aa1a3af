"""Any value of a sample's json ends as a value that Arrow stores, or as a reject with a reason."""

import json
import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.embed.decode.fields import FIELD_CUT, FIELD_REPLACED, FieldValue, field_value
from d2prune.embed.part import reject_table
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject, SampleRejected
from d2prune.inputs.sample_id import JSON_BROKEN, MAX_TEXT, parse_json, uid_of_record
from d2prune.store import schemas

SCHEMA = schemas.samples([("n", "number"), ("t", "text")])


def outcome(data, name, kind):
    """Return the value of a field, or its reject."""
    record, _ = parse_json(data)
    try:
        return field_value(record, name, kind)
    except SampleRejected as error:
        return error.reject("key")


def check(data, kind):
    """Store the outcome as the embed stage does, and return it."""
    found = outcome(data, "f", kind)
    if isinstance(found, Reject):
        assert found.reason in rejects.MEANINGS and "\n" not in found.detail
        assert reject_table("shard", [found])["detail"].to_pylist() == [found.detail]
        return found
    column = pa.array([found.value], SCHEMA.field("n" if kind == "number" else "t").type)
    column.validate(full=True)
    assert column.to_pylist() == [found.value]
    uid_of_record(parse_json(data)[0], b"", b"")
    return found


REJECTED = object()
EXAMPLES = [
    # json of the field, as a number, as a text
    ("1", 1.0, "1"),
    ("-0.0", -0.0, "-0.0"),
    ("1e3", 1000.0, "1000.0"),
    ("9223372036854775808", 2.0**63, "9223372036854775808"),
    ("1" + "0" * 400, REJECTED, "1" + "0" * 400),
    ("-1" + "0" * 400, REJECTED, "-1" + "0" * 400),
    ("1e999", REJECTED, "inf"),
    ("NaN", REJECTED, "nan"),
    ("Infinity", REJECTED, "inf"),
    ("-Infinity", REJECTED, "-inf"),
    ("true", REJECTED, "True"),
    ("null", REJECTED, ""),
    ('"3"', REJECTED, "3"),
    ('""', REJECTED, ""),
    ('"a\\u0000b"', REJECTED, "a\0b"),
    (r'"caf\ud83d"', REJECTED, "caf\ufffd"),
    (r'"\ud83d\ude00"', REJECTED, "\U0001f600"),
    (r'"\ude00\ud83d"', REJECTED, "\ufffd\ufffd"),
    (r'["\ud83d"]', REJECTED, "['\\ud83d']"),
    ('{"a": [1, null]}', REJECTED, "{'a': [1, None]}"),
    ('1, "f": "second"', REJECTED, "second"),
    ("[" * 500 + "]" * 500, REJECTED, "[" * 500 + "]" * 500),
]


@pytest.mark.parametrize(("value", "number", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_value_as_number_and_as_text(value, number, text):
    data = f'{{"f": {value}}}'.encode()
    found = check(data, "number")
    if number is REJECTED:
        assert isinstance(found, Reject) and found.reason == rejects.FIELD_MISSING
    else:
        assert found.value == number and math.copysign(1, found.value) == math.copysign(1, number)
    assert check(data, "text").value == text


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (b'"text"', ()),
        (b"[1]", ()),
        (b"", (JSON_BROKEN,)),
        (b"\xff\xfe", (JSON_BROKEN,)),
        (b'{"f": 1' + b"0" * 5000 + b"}", (JSON_BROKEN,)),
        (b'{"f": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", (JSON_BROKEN,)),
        (None, ()),
    ],
)
def test_json_without_the_field(data, notes):
    assert parse_json(data) == ({}, notes)
    assert check(data, "text") == FieldValue("") and isinstance(check(data, "number"), Reject)


def test_nesting_at_every_depth_is_a_value_or_a_reject():
    for depth in range(900, 1010, 3):
        assert check(b'{"f": ' + b"[" * depth + b"]" * depth + b"}", "text")


def test_replaced_and_cut_texts_are_counted():
    long = json.dumps({"f": "\ud83d" * (MAX_TEXT + 1)}).encode()
    assert check(long, "text") == FieldValue("\ufffd" * MAX_TEXT, (FIELD_CUT, FIELD_REPLACED))
    assert check(b'{"f": "' + b"x" * MAX_TEXT + b'"}', "text").notes == ()


# The grammar of Python's parser, which takes NaN and infinities, repeats and halves of surrogate pairs.
_TOKENS = st.one_of(
    st.sampled_from([value for value, _, _ in EXAMPLES]),
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.text(st.characters(codec=None, min_codepoint=0, max_codepoint=0x10FFFF)).map(json.dumps),
    st.sampled_from(["true", "false", "null", "1e400", "-1e-400", "--", "\x00"]),
)
_VALUES = st.recursive(
    _TOKENS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.lists(inner, max_size=4).map(lambda items: "{" + ",".join(f'"f":{i}' for i in items) + "}"),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(_VALUES, st.sampled_from(["number", "text"]), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_any_json_is_a_value_or_a_reject(value, kind, encoding):
    for text in (f'{{"f": {value}}}', value):
        assert check(text.encode(encoding, "surrogatepass"), kind)


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["number", "text"]))
def test_any_bytes_are_a_value_or_a_reject(data, kind):
    assert check(b'{"f": ' + data, kind) and check(data, kind)
