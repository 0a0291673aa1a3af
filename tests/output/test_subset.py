"""Subset files in DataComp's format."""

import io
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.errors import UserError
from d2prune.output import subset
from tests.hostile_arrays import HOSTILE_HEADERS

UIDS = ["f" * 32, "0" * 32, "0123456789abcdef" * 2, "f" * 32]


def test_a_uid_is_stored_as_two_64_bit_halves():
    rows = subset.encode(UIDS)
    assert rows.tolist() == [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in UIDS]
    assert subset.decode(rows) == UIDS


@given(st.lists(st.integers(0, 2**128 - 1)), st.integers(1, 7))
def test_the_file_is_sorted_with_any_number_of_passes(tmp_path_factory, values, rows_per_pass):
    url = str(tmp_path_factory.mktemp("s") / "subset.npy")
    rows = subset.encode([f"{value:032x}" for value in values])
    size, _ = subset.write(url, lambda: iter([rows[:2], rows[2:]]), rows_per_pass)
    expected = io.BytesIO()
    plain = sorted((value >> 64, value & (2**64 - 1)) for value in values)
    np.save(expected, np.array(plain, dtype="u8,u8"))
    data = open(url, "rb").read()
    assert data == expected.getvalue()
    assert size == len(data)
    assert subset.read(url).tolist() == plain


def test_an_unsorted_file_is_sorted_with_a_warning(tmp_path, caplog):
    path = tmp_path / "s.npy"
    np.save(path, subset.encode(UIDS))
    with caplog.at_level(logging.WARNING):
        assert subset.decode(subset.read(str(path))) == sorted(UIDS)
    assert "not sorted" in caplog.text


def test_rows_without_a_header_are_read(tmp_path):
    path = tmp_path / "s.bin"
    path.write_bytes(subset.encode(sorted(UIDS)).tobytes())
    assert subset.decode(subset.read(str(path))) == sorted(UIDS)


@pytest.mark.parametrize("uid", ["", "f" * 31, "f" * 33, "g" * 32, "0x" + "f" * 30, " " + "f" * 31])
def test_an_invalid_uid_is_refused(uid):
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        subset.encode(["0" * 32, uid])


@pytest.mark.parametrize(
    "content",
    [b"abc", np.zeros(3), *(data for data, _ in HOSTILE_HEADERS.values() if data)],
)
def test_a_file_that_is_not_a_subset_file_is_refused(tmp_path, content):
    path = tmp_path / "s.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(UserError, match=r"s\.npy") as caught:
        subset.read(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not found"):
        subset.read(str(tmp_path / "none.npy"))


def test_a_file_of_another_length_or_of_zeros_is_refused():
    """Every length below and above, so that a copy that was interrupted anywhere is no smaller selection."""
    data = subset.to_bytes(subset.encode(UIDS))
    others = [data[:length] for length in range(len(data))]
    others += [data + b"\0", data + data, bytes(len(data)), bytes(1), bytes(16)]
    for other in others:
        with pytest.raises(UserError, match=r"^s\.npy: (found|cannot be read: )") as caught:
            subset.parse(other, "s.npy")
        assert "\n" not in str(caught.value)
    assert len(subset.parse(data, "s.npy")) == len(UIDS)
    assert len(subset.parse(subset.to_bytes(subset.encode([])), "s.npy")) == 0


@pytest.mark.parametrize("shape", [10**18, 10**30, -1, 2**63])
def test_a_header_that_states_another_number_of_rows_is_refused(shape):
    header = io.BytesIO()
    description = {"descr": [("f0", "<u8"), ("f1", "<u8")], "fortran_order": False, "shape": (shape,)}
    np.lib.format.write_array_header_1_0(header, description)
    with pytest.raises(UserError, match=r"^s\.npy: "):
        subset.parse(header.getvalue() + bytes(32), "s.npy")
