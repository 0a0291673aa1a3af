"""Batches of samples against the objects of the reader: intact and damaged."""

import io
import json
import tarfile
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar import index
from d2prune.inputs.tar.reader import TarReader
from tests.inputs.tar.test_reader import make_tar

UID = "0123456789ABCDEF0123456789abcdef"
JSONS = st.sampled_from(
    [
        json.dumps({"uid": UID}),
        json.dumps({"uid": UID, "text": "é"}),
        json.dumps({"a": 1}),
        "{",
        '{"uid": "é"}',
    ]
)
FILES = st.sampled_from(["jpg", "JPG", "txt", "json", "Json", "a.json", "jso"])
KEYS = st.sampled_from(["0", "1", "folder/0", "x" * 130, "名"])
ENTRIES = st.lists(st.tuples(KEYS, FILES, JSONS.map(str.encode) | st.binary(max_size=1500)), max_size=24)


def by_batches(content):
    """Return (key, offset, size, uid or json) per sample, and the rejects."""
    rows = []
    batches = index.read_batches(content)
    while True:
        try:
            batch = next(batches)
        except StopIteration as stopped:
            start, rest = stopped.value
            break
        for i, (offset, size) in enumerate(zip(batch.offsets.tolist(), batch.sizes.tolist(), strict=True)):
            key = batch.key_bytes[batch.key_bounds[i] : batch.key_bounds[i + 1]].tobytes().decode()
            found = batch.jsons[i] if i in batch.jsons else batch.uids[i].tobytes().decode()
            rows.append((key, offset, size, found))
    reader = TarReader(rest, frozenset({"json"}), start=start)
    for item in reader:
        if isinstance(item, Reject):
            rows.append(item)
        else:
            rows.append((item.key, item.offset, item.size, item.members.get("json")))
    return rows, reader.bytes_read


def check_rows(rows, data):
    """Compare rows with what the reader yields for the complete tar; return its length."""
    reader = TarReader(io.BytesIO(data), frozenset({"json"}))
    for row, item in zip(rows, reader, strict=True):
        if isinstance(item, Reject):
            assert row == item
            continue
        key, offset, size, found = row
        assert (key, offset, size) == (item.key, item.offset, item.size)
        if isinstance(found, str):
            assert found == json.loads(item.members["json"])["uid"].lower()
        else:
            assert found == item.members.get("json")
    return reader.bytes_read


@settings(deadline=None)
@given(ENTRIES, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 5), st.data())
def test_batches_equal_the_samples_of_the_reader(entries, form, n_members, draws):
    data = bytearray(make_tar([(f"{key}.{name}", payload) for key, name, payload in entries], form))
    if draws.draw(st.booleans()):
        data[draws.draw(st.integers(0, len(data) - 1))] ^= draws.draw(st.integers(1, 255))
    data = bytes(data[: draws.draw(st.sampled_from([len(data), len(data) // 2]))])
    with (
        mock.patch.object(index, "_SCAN_MEMBERS", n_members),
        mock.patch.object(index, "_STREAM_BYTES", 4096),
    ):
        rows, size = by_batches(io.BufferedReader(io.BytesIO(data)))
        assert size == check_rows(rows, data) == len(data)


def test_ordinary_samples_come_in_one_batch_without_json():
    entries = [
        (f"{i:09d}.{name}", payload)
        for i in range(50)
        for name, payload in (
            ("jpg", b"x" * 700),
            ("json", json.dumps({"uid": f"{i:032x}"}).encode()),
            ("txt", b"t"),
        )
    ]
    (batch,) = index.read_batches(io.BytesIO(make_tar(entries)))
    # The last sample is left to the reader, since it may continue.
    assert [uid.tobytes() for uid in batch.uids] == [f"{i:032x}".encode() for i in range(49)]
    assert not batch.jsons
