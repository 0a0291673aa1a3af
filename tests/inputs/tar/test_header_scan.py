"""The compiled header scan against the walker: same members, and it stops where it cannot decide."""

import io
import tarfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.inputs.tar import header_scan
from d2prune.inputs.tar import reader as reader_module
from d2prune.inputs.tar.header import BLOCK
from d2prune.inputs.tar.reader import TarReader
from tests.inputs.tar.test_reader import make_tar

names = st.tuples(
    st.sampled_from(["a", "b", "d/a", "d.x/a", "ab"]), st.sampled_from(["jpg", "JPG", "txt", "tXt", "j.s"])
)
entries = st.lists(st.tuples(names.map(".".join), st.binary(max_size=1200)), max_size=30)


def events(data):
    reader = TarReader(io.BytesIO(data), frozenset({"jpg", "txt"}))
    return list(reader), reader.bytes_read, reader.end_mark


def walked(data):
    """Read with the walker alone."""
    nothing = np.empty((0, 5), np.int64)
    with mock.patch.object(header_scan, "scan_members", lambda *_: nothing):
        return events(data)


@settings(deadline=None)
@given(entries, st.integers(1, 7), st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT]))
def test_scans_of_any_length_give_the_samples_of_the_walker(members, n_members, format):
    data = make_tar(members, format)
    expected = walked(data)
    with (
        mock.patch.object(reader_module, "_SCAN_MEMBERS", n_members),
        mock.patch.object(reader_module, "_SCAN_BYTES", 1024 * n_members),
    ):
        assert events(data) == expected


@settings(deadline=None)
@given(entries.filter(len), st.data())
def test_one_wrong_byte_gives_the_same_samples_and_rejects(members, data):
    changed = bytearray(make_tar(members, tarfile.GNU_FORMAT))
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] = data.draw(st.integers(0, 255))
    expected = walked(bytes(changed))
    with mock.patch.object(reader_module, "_SCAN_BYTES", 3000):
        assert events(bytes(changed)) == expected


def test_rows_of_an_ordinary_tar():
    data = make_tar([("k/1.jpg", b"x" * 600), ("k/1.a.txt", b""), ("k/2.jpg", b"y"), ("k/2.JPG", b"z")])
    rows = header_scan.scan_members(data, 0, 1000, 99)
    assert rows[:, header_scan.START].tolist() == [0, 3 * BLOCK, 4 * BLOCK, 6 * BLOCK]
    assert rows[:, header_scan.SIZE].tolist() == [600, 0, 1, 1]
    assert rows[:, header_scan.KEY_END].tolist() == [3, 3, 3, 3]
    assert rows[:, header_scan.NAME_END].tolist() == [7, 9, 7, 7]
    assert rows[:, header_scan.IS_FIRST].tolist() == [1, 0, 1, 1]
    assert np.array_equal(header_scan.scan_members(data, 4 * BLOCK, 1000, 1), rows[2:3])
    assert len(header_scan.scan_members(data, 0, 599, 99)) == 0


@pytest.mark.parametrize(
    "name", ["é.jpg", "none", ".hidden", "d/.hidden.jpg", "__meta__/a.jpg", "x" * 120 + ".jpg"]
)
def test_scan_stops_at_a_header_that_is_not_ordinary(name):
    data = make_tar([("1.jpg", b"x"), (name, b"y"), ("2.jpg", b"z")])
    assert header_scan.scan_members(data, 0, 1000, 99)[:, header_scan.START].tolist() == [0]
    link = tarfile.TarInfo("0.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "1.jpg"
    assert len(header_scan.scan_members(make_tar([("1.jpg", b"x")], others=[link]), 0, 1000, 99)) == 0
