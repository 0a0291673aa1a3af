"""Read rows of a matrix from `.npy` and `.npz` files at any URL by byte ranges.

Never reads a complete file or array. A stored member of an `.npz` (`numpy.savez`) is read like a
separate file: the zip directory gives the position of its local header, which gives the position of
its data. A compressed member is inflated from its start, a block at a time. numpy's own reader
parses array headers. Pickled arrays are refused, so no code from a pool is ever executed. Formats:
numpy.lib.format 1.0 and 2.0; PKWARE APPNOTE 4.3.7 (local file header), zip64 included.
"""

import contextlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import D2PruneError, UserError
from d2prune.inputs.rejects import clean_line
from d2prune.store import FileInfo
from d2prune.store.npy import HEADER_LOCK
from d2prune.store.ranges import open_ranges, seekable

# numpy pads headers to 64 bytes and refuses headers above 10,000 bytes.
_HEADER_BYTES = 16_384
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_SKIP = 1 << 20
_MAX_LISTED = 20

MAX_DIMENSIONS = 16_384
"""Widest embedding that is read, so that a batch of rows has a few hundred MiB whatever a header claims."""

ReadBytes = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Matrix:
    """A matrix of floats in a file.

    Attributes:
        rows: N.
        columns: D; 0 where there is no row and the file records no width.
        dtype: as it is stored, such as `<f2`.
        read: `read(start, stop)` returns rows [start, stop) as an array. Rows of a compressed
            matrix must be read in ascending order, each at most once.
        file: that holds it.
        offset: of row 0 in the file, if it is stored as it is in memory; None if it is compressed.
    """

    rows: int
    columns: int
    dtype: str
    read: Callable[[int, int], NDArray[Any]]
    file: FileInfo
    offset: int | None


@contextlib.contextmanager
def open_npy(file: FileInfo) -> Iterator[Matrix]:
    """Open the matrix in an `.npy` file.

    Raises:
        UserError: the file is missing, changed, truncated, or not a matrix of floats.
    """
    with open_ranges(file) as read:
        yield _open_stored(file, read, 0, file.size, store.redact(file.url))


class NpzArrays:
    """An open `.npz` file.

    Attributes:
        names: of its arrays, in its order.
    """

    def __init__(self, file: FileInfo, read: ReadBytes, archive: zipfile.ZipFile) -> None:
        """Read nothing yet; see `open_npz`."""
        self._file, self._read, self._archive = file, read, archive
        self._shown = store.redact(file.url)
        self.names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Matrix]:
        """Open one matrix.

        Raises:
            UserError: see `open_npy`; or there is no such array, and the message lists the existing
                ones.
        """
        try:
            member = self._archive.getinfo(f"{name}.npy")
        except KeyError as error:
            found = clean_line(", ".join(self.names[:_MAX_LISTED])) or "no array"
            raise UserError(f"{self._shown}: no array {clean_line(name)}; found {found}") from error
        where = f"{self._shown}: {clean_line(name)}"
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            start = _find_data(self._read, member, self._file.size, where)
            if start + member.file_size > self._file.size:
                raise UserError(f"{where}: the file ends before the array; it is damaged or truncated")
            yield _open_stored(self._file, self._read, start, member.file_size, where, member.CRC)
        else:
            with _open_member(self._archive, member, where) as inflated:
                yield _InflatedMatrix(self._file, inflated, member.file_size, where).matrix


@contextlib.contextmanager
def open_npz(file: FileInfo) -> Iterator[NpzArrays]:
    """Open an `.npz` file.

    Raises:
        UserError: the file is missing, changed, or not a zip file.
    """
    with open_ranges(file) as read:
        with _open_zip(seekable(file, read), store.redact(file.url)) as archive:
            yield NpzArrays(file, read, archive)


def _format_error(error: BaseException) -> str:
    return clean_line(str(error))[:300] or type(error).__name__


@contextlib.contextmanager
def _open_zip(stream: IO[bytes], shown: str) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(stream)
    except D2PruneError:
        raise
    except Exception as error:
        # On damaged bytes, zipfile raises BadZipFile, ValueError, NotImplementedError, struct.error and
        # others.
        raise UserError(f"{shown}: not an .npz file, or truncated: {_format_error(error)}") from error
    with archive:
        yield archive


def _find_data(read: ReadBytes, member: zipfile.ZipInfo, size: int, where: str) -> int:
    """Return where a member's data begins. Its local header and directory entry may differ in length."""
    if not 0 <= member.header_offset <= size - _LOCAL_HEADER.size:
        raise UserError(f"{where}: the zip directory points outside the file; the file is damaged")
    magic, name, extra = _LOCAL_HEADER.unpack(read(member.header_offset, _LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise UserError(f"{where}: no local header where the zip directory points; the file is damaged")
    return int(member.header_offset + _LOCAL_HEADER.size + name + extra)


def _parse_header(head: bytes, size: int, where: str) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """Return shape, dtype and header length of an array of `size` bytes, header included."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise UserError(f"{where}: array format {version[0]}.{version[1]}; expected 1.0 or 2.0")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        with HEADER_LOCK:
            shape, columns_first, dtype = read(stream)
    except D2PruneError:
        raise
    except Exception as error:
        # numpy parses the header as a Python literal: ValueError, TypeError, SyntaxError, TokenError and
        # others.
        raise UserError(f"{where}: not an array: {_format_error(error)}") from error
    if dtype.hasobject:
        raise UserError(f"{where}: found pickled objects, which are never loaded; expected floats")
    # An array made from an empty list has the shape (0,).
    rows, columns = shape if len(shape) == 2 else (0, 0)
    is_matrix = (rows >= 0 and columns > 0) or shape in ((0,), (0, 0))
    if not is_matrix or dtype.kind != "f" or dtype.itemsize > 8:
        raise UserError(f"{where}: {clean_line(f'{dtype} {shape}')}; expected floats [rows, dimensions]")
    if columns > MAX_DIMENSIONS:
        raise UserError(f"{where}: {columns} dimensions; expected at most {MAX_DIMENSIONS}")
    if columns_first and min(rows, columns) > 1:
        raise UserError(
            f"{where}: found Fortran (column-major) order; expected C order: "
            "save numpy.ascontiguousarray(array)"
        )
    start = stream.tell()
    if start + math.prod(shape) * dtype.itemsize != size:
        raise UserError(
            f"{where}: {size - start} bytes for {dtype} {shape}; the file is damaged or truncated"
        )
    return (int(rows), int(columns)), dtype, start


def _to_native(data: bytes, dtype: np.dtype[Any], columns: int) -> NDArray[Any]:
    rows = np.frombuffer(data, dtype).reshape(-1 if columns else 0, columns)
    return rows if dtype.isnative else rows.astype(dtype.newbyteorder("="))


def _open_stored(
    file: FileInfo, read: ReadBytes, offset: int, size: int, where: str, expected_crc: int | None = None
) -> Matrix:
    """Open a matrix that is stored uncompressed in `size` bytes at `offset`.

    The CRC-32 of a zip directory is checked if all rows are read in ascending order.
    """
    head = read(offset, min(size, _HEADER_BYTES))
    (rows, columns), dtype, start = _parse_header(head, size, where)
    width = columns * dtype.itemsize
    crc, checked = zlib.crc32(head[:start]), 0

    def read_rows(first: int, stop: int) -> NDArray[Any]:
        nonlocal crc, checked
        data = read(offset + start + first * width, (stop - first) * width)
        if expected_crc is not None and first == checked:
            crc, checked = zlib.crc32(data, crc), stop
            if stop == rows and crc != expected_crc:
                raise UserError(f"{where}: damaged: the CRC-32 of its bytes differs from the zip directory's")
        return _to_native(data, dtype, columns)

    return Matrix(rows, columns, dtype.str, read_rows, file, offset + start)


@contextlib.contextmanager
def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Iterator[IO[bytes]]:
    try:
        stream = archive.open(member)
    except D2PruneError:
        raise
    except Exception as error:
        raise UserError(f"{where}: cannot be decompressed: {_format_error(error)}") from error
    with stream:
        yield stream


class _InflatedMatrix:
    """A compressed matrix, inflated while it is read, forwards only."""

    def __init__(self, file: FileInfo, stream: IO[bytes], size: int, where: str) -> None:
        self._stream, self._where = stream, where
        head = self._take(min(size, _HEADER_BYTES))
        (rows, columns), self._dtype, start = _parse_header(head, size, where)
        self._left, self._next = head[start:], 0
        self._width = columns * self._dtype.itemsize
        self.matrix = Matrix(rows, columns, self._dtype.str, self.read, file, None)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        skip = (first - self._next) * self._width
        if skip < 0:
            raise ValueError(f"row {first}: expected row {self._next} or a later one")
        while skip:
            skip -= len(self._next_bytes(min(skip, _SKIP)))
        self._next = stop
        return _to_native(self._next_bytes((stop - first) * self._width), self._dtype, self.matrix.columns)

    def _next_bytes(self, size: int) -> bytes:
        """Return the next bytes of the array, some of which were read with the header."""
        data, self._left = self._left[:size], self._left[size:]
        return data + self._take(size - len(data)) if len(data) < size else data

    def _take(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except D2PruneError:
            raise
        except Exception as error:
            # zlib.error, LZMAError, BadZipFile, EOFError and others.
            raise UserError(f"{self._where}: cannot be decompressed: {_format_error(error)}") from error
        if len(data) != size:
            raise UserError(f"{self._where}: ends {size - len(data)} bytes too early")
        return data
