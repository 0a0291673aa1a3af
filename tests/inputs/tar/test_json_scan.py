"""The compiled check of JSON objects against `json.loads`."""

import json
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.tar.json_scan import NO_UID, UNSURE, find_uid

UID = "0123456789abcdefABCDEF0123456789"
PUNCTUATION = string.punctuation.replace("\\", "").replace('"', "")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([UID, UID[1:]]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uid", "a", "ü"]), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["uid", "uid ", "a", '"', "é"]), VALUES, max_size=4)


def scan(data):
    """Return the uid that `find_uid` finds, None where there is none, or UNSURE."""
    around = np.frombuffer(b'"' + data + b'}"', np.uint8)
    at = find_uid(around, 1, 1 + len(data))
    return around[at : at + 32].tobytes().decode() if at >= 0 else {NO_UID: None, UNSURE: UNSURE}[at]


def check(data):
    found = scan(data)
    if found is not UNSURE:
        uid = json.loads(data)["uid"] if b'"uid"' in data and "uid" in json.loads(data) else None
        is_uid = isinstance(uid, str) and re.fullmatch("[0-9a-fA-F]{32}", uid)
        assert found == (uid if is_uid else None)
    return found


@settings(deadline=None)
@given(
    OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from([("", ""), (" \n", "\t"), ("", "x")])
)
def test_definite_answers_equal_json_loads(value, indent, ascii, around):
    check(
        (around[0] + json.dumps(value, indent=indent, ensure_ascii=ascii) + around[1]).encode(
            errors="replace"
        )
    )


@settings(deadline=None, max_examples=300)
@given(OBJECTS, st.data())
def test_one_wrong_byte_is_never_accepted(value, data):
    text = bytearray(json.dumps(value).encode())
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(
        st.sampled_from(b'{}[]",:\\u0-.eE tfn\n\x80' + b"9a")
    )
    try:
        json.loads(bytes(text))
    except ValueError:
        assert scan(bytes(text)) is UNSURE
    else:
        check(bytes(text))


@pytest.mark.parametrize(
    "text",
    [
        "{}", '{"a": -0.5e+10, "b": [true, false, null, [], {}]}', f'{{"uid": "{UID}"}}',
        f' {{ "uid" : "{UID}" }} ',
        f'{{"uid": 1, "uid": "{UID}"}}', f'{{"uid": "{UID}", "uid": null}}', f'{{"a": {{"uid": "{UID}"}}}}',
        r'{"a": "\u00e9\ud800\n\"\\\/\b\f\r\t"}', f'{{"a": "{PUNCTUATION}"}}',
        '{"a": 0}', f'{{"uid": "{UID[1:]}g"}}',
    ],
)  # fmt: skip
def test_ordinary_objects_get_a_definite_answer(text):
    assert check(text.encode()) is not UNSURE


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", '{"a": NaN}', '{"a": -Infinity}', '{"a": 01}', '{"a": 1.}', '{"a": .1}',
        '{"a": 1e}',
        '{"a": -}', '{"a" 1}', '{"a": 1,}', '{"a": [1,]}', '{"a": [1}', '{"a": 1]', '{a: 1}', "{,}",
        '{"a": tru}',
        "{}}",
        '{"a": "\n"}', r'{"a": "\x"}', r'{"a": "\u12"}', '{"a": "', '{"a', '{"a":', '{"a": 1 "b": 2}',
        '{"é": 1}',
        r'{"\u0075id": "x"}', r'{"uid": "\u0030123456789abcdef0123456789abcde"}',
        f'{{"a": {"[" * 40}1{"]" * 40}}}',
        f'{{"a": {"1" * 5000}}}', "\ufeff{}",
    ],
)  # fmt: skip
def test_everything_else_is_left_to_json_loads(text):
    assert scan(text.encode()) is UNSURE
