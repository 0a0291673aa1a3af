"""The uid of a sample is that of its JSON, or a hash of image and caption."""

import hashlib
import json

import pytest

from d2prune.inputs.sample_id import JSON_BROKEN, UID_FROM_HASH, sample_uid


def test_uid_of_the_json_is_lower_cased():
    assert sample_uid(json.dumps({"uid": "AB" * 16}).encode(), b"", b"") == ("ab" * 16, ())


@pytest.mark.parametrize("value", [None, 7, "short", "g" * 32, "0" * 33])
def test_invalid_uid_is_hashed(value):
    expected = hashlib.blake2b(b"\3" + bytes(7) + b"imgtxt", digest_size=16).hexdigest()
    assert sample_uid(json.dumps({"uid": value}).encode(), b"img", b"txt") == (expected, (UID_FROM_HASH,))
    assert sample_uid(None, b"img", b"txt") == (expected, (UID_FROM_HASH,))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_broken_json_is_counted_and_hashed(data):
    assert sample_uid(data, b"", b"")[1] == (JSON_BROKEN, UID_FROM_HASH)


def test_json_that_is_not_an_object_is_hashed():
    assert sample_uid(b"[1]", b"", b"")[1] == (UID_FROM_HASH,)


def test_hash_separates_image_and_caption():
    assert sample_uid(None, b"ab", b"c") != sample_uid(None, b"a", b"bc")
