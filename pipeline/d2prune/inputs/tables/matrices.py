"""Rows of a matrix out of `.npy` and `.npz` files at any URL, by range: never a whole file, never a whole array.

A member of an `.npz` that is stored as it is (`numpy.savez`) is read like a file of its own: the
zip's directory says where its header lies, the header where its bytes begin. A compressed member is
inflated from its start, a block at a time. Array headers are parsed by numpy's own reader; pickled
arrays are refused, so no byte of a pool is ever executed.
Formats: numpy.lib.format 1.0 and 2.0; PKWARE APPNOTE 4.3.7 (local file header), zip64 included.
"""

import contextlib
import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.store import FileInfo
from d2prune.store.ranges import open_ranges, open_seekable

# numpy pads headers to 64 bytes and refuses those above 10,000.
_HEADER_BYTES = 16_384
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_SKIP = 1 << 20

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Matrix:
    """A matrix [rows, columns] of floats that lies in a file.

    Attributes:
        rows: N.
        columns: D.
        read: `read(start, stop)` gives rows [start, stop) as an array; of a compressed one
            ascending, each row once.
    """

    rows: int
    columns: int
    read: Callable[[int, int], NDArray[Any]]


@contextlib.contextmanager
def open_npy(file: FileInfo) -> Iterator[Matrix]:
    """The matrix in an `.npy` file.

    Raises:
        UserError: the file is gone, changed, cut off, or holds something else than a matrix of floats.
    """
    with open_ranges(file) as read:
        yield _stored(read, 0, file.size, store.redact(file.url))


@contextlib.contextmanager
def open_npz(file: FileInfo, name: str) -> Iterator[Matrix]:
    """The matrix called `name` in an `.npz` file.

    Raises:
        UserError: as `open_npy`, or there is no such array; the message lists those there are.
    """
    shown = store.redact(file.url)
    with open_ranges(file) as read, open_seekable(file) as stream, _zip(stream, shown) as archive:
        try:
            member = archive.getinfo(f"{name}.npy")
        except KeyError as error:
            raise UserError(f"{shown}: holds no array {name}, but {_listed(_arrays(archive))}") from error
        where = f"{shown}: {name}"
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            start = _data_start(read, member, where)
            if start + member.file_size > file.size:
                raise UserError(f"{where}: the file ends before the array does")
            yield _stored(read, start, member.file_size, where)
        else:
            with _inflating(archive, member, where) as inflated:
                yield _Inflated(inflated, member.file_size, where).matrix


def npz_names(file: FileInfo) -> list[str]:
    """The arrays an `.npz` file holds, in its order.

    Raises:
        UserError: it is gone, changed, or no zip file.
    """
    with open_seekable(file) as stream, _zip(stream, store.redact(file.url)) as archive:
        return _arrays(archive)


def _arrays(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) or "no array at all"


@contextlib.contextmanager
def _zip(stream: IO[bytes], shown: str) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise UserError(f"{shown}: not an .npz file, or cut off: {error}") from error
    with archive:
        yield archive


def _data_start(read: Read, member: zipfile.ZipInfo, where: str) -> int:
    """Where a member's bytes begin: its local header has a length of its own, other than the directory's."""
    magic, name, extra = _LOCAL_HEADER.unpack(read(member.header_offset, _LOCAL_HEADER.size))
    if magic != b"PK\x03\x04":
        raise UserError(f"{where}: the zip's directory points at something else; the file is damaged")
    return int(member.header_offset + _LOCAL_HEADER.size + name + extra)


def _header(head: bytes, size: int, where: str) -> tuple[tuple[int, int], np.dtype[Any], int]:
    """Shape, type and length of the header of an array of `size` bytes, header included."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise UserError(f"{where}: array format {version[0]}.{version[1]}, expected 1.0 or 2.0")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, columns_first, dtype = read(stream)
    except ValueError as error:
        raise UserError(f"{where}: not an array: {' '.join(str(error).split())}") from error
    if dtype.hasobject:
        raise UserError(f"{where}: holds pickled objects, which are never loaded; expected floats")
    if len(shape) != 2 or dtype.kind != "f" or dtype.itemsize > 8 or shape[1] == 0:
        raise UserError(f"{where}: {dtype} {shape}, expected floats [rows, dimensions]")
    if columns_first and min(shape) > 1:
        raise UserError(
            f"{where}: lies column by column (Fortran order); save it with numpy.ascontiguousarray"
        )
    start = stream.tell()
    if start + math.prod(shape) * dtype.itemsize != size:
        raise UserError(f"{where}: {size - start} bytes for {dtype} {shape}; the file is damaged or cut off")
    return (int(shape[0]), int(shape[1])), dtype, start


def _native(data: bytes, dtype: np.dtype[Any], columns: int) -> NDArray[Any]:
    rows = np.frombuffer(data, dtype).reshape(-1, columns)
    return rows if dtype.isnative else rows.astype(dtype.newbyteorder("="))


def _stored(read: Read, offset: int, size: int, where: str) -> Matrix:
    """A matrix whose `size` bytes lie at `offset`."""
    (rows, columns), dtype, start = _header(read(offset, min(size, _HEADER_BYTES)), size, where)
    width = columns * dtype.itemsize

    def rows_of(first: int, stop: int) -> NDArray[Any]:
        return _native(read(offset + start + first * width, (stop - first) * width), dtype, columns)

    return Matrix(rows, columns, rows_of)


@contextlib.contextmanager
def _inflating(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Iterator[IO[bytes]]:
    try:
        stream = archive.open(member)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{where}: cannot be unpacked: {error}") from error
    with stream:
        yield stream


class _Inflated:
    """A matrix that is inflated on the way, forwards only."""

    def __init__(self, stream: IO[bytes], size: int, where: str) -> None:
        self._stream, self._where = stream, where
        head = self._take(min(size, _HEADER_BYTES))
        (rows, columns), self._dtype, start = _header(head, size, where)
        self._left, self._next = head[start:], 0
        self._width = columns * self._dtype.itemsize
        self.matrix = Matrix(rows, columns, self.read)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        skip = (first - self._next) * self._width
        if skip < 0:
            raise ValueError(f"rows from {first} were asked for after those before {self._next}")
        while skip:
            skip -= len(self._bytes(min(skip, _SKIP)))
        self._next = stop
        return _native(self._bytes((stop - first) * self._width), self._dtype, self.matrix.columns)

    def _bytes(self, size: int) -> bytes:
        """The next bytes of the array, some of which came with the header."""
        data, self._left = self._left[:size], self._left[size:]
        return data + self._take(size - len(data)) if len(data) < size else data

    def _take(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
            raise UserError(f"{self._where}: cannot be unpacked: {error}") from error
        except Exception as error:
            # zlib.error and its like derive from Exception alone.
            if type(error).__module__ in ("zlib", "_lzma", "_bz2"):
                raise UserError(f"{self._where}: cannot be unpacked: {error}") from error
            raise
        if len(data) != size:
            raise UserError(f"{self._where}: ends {size - len(data)} bytes too early")
        return data
