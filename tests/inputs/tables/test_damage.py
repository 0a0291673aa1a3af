"""Damaged files give equal data or one line that names the file, whatever byte is wrong."""

import io
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tables.matrices import open_npy, open_npz
from d2prune.inputs.tables.parquet import open_table
from tests.hostile_arrays import HOSTILE_HEADERS, npy_of

ROWS = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float16)
TABLE = pa.table(
    {
        "uid": [f"{i:032x}" for i in range(40)],
        "text": [f"caption {i}" * (i % 4) if i % 7 else None for i in range(40)],
        "emb": pa.array([[float(i), 1.0] if i % 9 else None for i in range(40)], pa.list_(pa.float32())),
        "box": [{"a": i, "b": [str(i)]} for i in range(40)],
    }
)


def parquet(**options):
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, write_page_checksum=True, **options)
    return sink.getvalue()


def npz(compression):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        archive.writestr("a.npy", npy_of(ROWS))
        archive.writestr("b.npy", npy_of(ROWS[:, :1]))
    return sink.getvalue()


def read_parquet(file):
    with open_table(file) as table:
        batches = [batch for _, batch in table.read_rows(range(table.rows), table.schema.names, 16)]
        for batch in batches:
            batch.validate()
        return pa.Table.from_batches(batches, table.schema)


def read_npz(file):
    found = []
    for name in ("a", "b"):
        with open_npz(file) as arrays, arrays.open(name) as matrix:
            found.append(
                np.concatenate([matrix.read(0, matrix.rows // 2), matrix.read(matrix.rows // 2, matrix.rows)])
            )
    return [rows.tobytes() for rows in found]


def read_npy(file):
    with open_npy(file) as matrix:
        return matrix.read(0, matrix.rows)


GZIP = parquet(compression="gzip", data_page_version="2.0")
PLAIN = parquet(compression="none", use_dictionary=False, row_group_size=15)
# What reads a file, its bytes, and how many of them a checksum covers.
FILES = {
    "parquet": (read_parquet, PLAIN, len(PLAIN) - 8 - struct.unpack("<I", PLAIN[-8:-4])[0]),
    "parquet-gzip": (read_parquet, GZIP, len(GZIP) - 8 - struct.unpack("<I", GZIP[-8:-4])[0]),
    "npz-stored": (read_npz, npz(zipfile.ZIP_STORED), 1 << 30),
    "npz-deflated": (read_npz, npz(zipfile.ZIP_DEFLATED), 1 << 30),
    "npz-lzma": (read_npz, npz(zipfile.ZIP_LZMA), 1 << 30),
    "npy": (read_npy, npy_of(ROWS), 0),
}


def damage(data, kind, at, value):
    """Return the bytes with one fault at or after position `at`."""
    match kind:
        case "truncate":
            return data[:at]
        case "zero":
            return data[:at] + bytes(min(1 + value % 40, len(data) - at)) + data[at + 1 + value % 40 :]
        case "insert":
            return data[:at] + bytes([value]) + data[at:]
        case "delete":
            return data[:at] + data[at + 1 + value % 8 :]
    return data[:at] + bytes([data[at] ^ (1 << value % 8)]) + data[at + 1 :]


KINDS = st.sampled_from(["flip", "flip", "truncate", "zero", "insert", "delete"])


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None)
@given(kind=KINDS, place=st.floats(0, 0.999), from_end=st.booleans(), value=st.integers(0, 255))
def test_damaged_bytes_are_equal_data_or_a_named_error(name, tmp_path_factory, kind, place, from_end, value):
    read, data, covered = FILES[name]
    # Directories and footers are at the end: half of all faults are in the last tenth.
    at = int(len(data) * (1 - place / 10 - 0.001)) if from_end else int(len(data) * place)
    path = tmp_path_factory.mktemp("damage") / "x.parquet"
    path.write_bytes(damage(data, kind, at, value))
    try:
        found = read(store.info(str(path)))
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        path.write_bytes(data)
        expected = read(store.info(str(path)))
        if at < covered:
            assert found.equals(expected) if isinstance(found, pa.Table) else found == expected


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"a,b\n1,2\n", b"PAR1", b"PAR1" * 2, b"PAR1" + b"\xff" * 4 + b"PAR1", bytes(5000)]
)
@pytest.mark.parametrize(
    ("read", "message"),
    [(read_parquet, "not parquet"), (read_npz, "not an .npz file"), (read_npy, "not an array")],
)
def test_other_files_are_a_named_error(tmp_path, read, message, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read(store.info(str(path)))
    assert f"{path}: {message}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_hostile_array_headers_are_a_named_error(tmp_path, name):
    data, message = HOSTILE_HEADERS[name]
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_npy(store.info(str(path)))
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("a.npy", data)
        with pytest.raises(UserError) as caught:
            read_npz(store.info(str(path)))
        assert f"{path}: a: " in str(caught.value) and message in str(caught.value)


def patch_zip(at, value):
    """Return a stored npz whose first directory entry has other bytes at `at`."""
    data = bytearray(npz(zipfile.ZIP_STORED))
    entry = data.index(b"PK\x01\x02") + at
    data[entry : entry + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patch_zip(8, b"\x01\0"), "cannot be decompressed"),
        (patch_zip(10, b"\x63\0"), "cannot be decompressed"),
        (patch_zip(20, b"\xff\xff\xff\x7f" * 2), "the file ends before the array"),
        (patch_zip(24, b"\x01"), "not an array"),
        (patch_zip(42, b"\xff\xff\xff\x7f"), "points outside the file"),
        (patch_zip(16, b"\0\0\0\0"), "CRC-32"),
    ],
    ids=["encrypted", "AES", "size", "short", "offset", "crc"],
)
def test_hostile_zip_entries_are_a_named_error(tmp_path, data, message):
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_npz(store.info(str(path)))
    assert f"{path}: a: " in str(caught.value) and message in str(caught.value)


def test_an_array_that_expands_a_thousandfold_is_read_a_batch_at_a_time(tmp_path):
    import tracemalloc

    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros((40_000, 256), np.float16))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with open_npz(store.info(str(path))) as arrays, arrays.open("a") as matrix:
        for first in range(0, matrix.rows, 1000):
            assert not matrix.read(first, first + 1000).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
