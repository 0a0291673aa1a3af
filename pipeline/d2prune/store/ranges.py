"""A file at any URL as a seekable stream of ranged reads, for libraries that jump about in it (zip, parquet).

Reads what is asked for and no more, in blocks that make a request worth its round trip. The file
must be the one that was listed: another size or version is told, since artifacts are named after
what was listed.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import UserError
from d2prune.store import FileInfo

_BLOCK = 1 << 20


class RangeFile(io.RawIOBase):
    """Bytes [0, size) behind `read(offset, size)`; seeks cost nothing."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        """Nothing is read yet."""
        self._size, self._read, self._position = size, read, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any stream."""
        self._position = max(
            0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        )
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of any stream."""
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        buffer[:size] = self._read(self._position, size)
        self._position += size
        return size


@contextlib.contextmanager
def open_ranges(file: FileInfo) -> Iterator[Callable[[int, int], bytes]]:
    """`read(offset, size)` of a file, as `storage.ranged_reader`, after a look whether it is still the one listed.

    Raises:
        UserError: it is gone, or another one lies there.
    """
    shown = store.redact(file.url)
    try:
        now = store.info(file.url)
        if (now.size, now.version) != (file.size, file.version):
            raise UserError(f"{shown}: changed since this run began; run again to read what is there now")
        with store.ranged_reader(file.url) as read:
            yield read
    except FileNotFoundError as error:
        raise UserError(f"{shown}: not found; it was there when this run began") from error


@contextlib.contextmanager
def open_seekable(file: FileInfo) -> Iterator[IO[bytes]]:
    """A file as a buffered, seekable stream; raises what `open_ranges` does."""
    with open_ranges(file) as read:
        yield io.BufferedReader(RangeFile(file.size, read), _BLOCK)


def open_parquet(url: str, size: int) -> pq.ParquetFile:
    """A parquet file of `size` bytes, of which only what is asked for is read; a local one is mapped."""
    if store.is_local(url):
        with store.mapped_or_stream(url) as view:
            return pq.ParquetFile(pa.BufferReader(pa.py_buffer(view)))
    return pq.ParquetFile(
        pa.PythonFile(RangeFile(size, functools.partial(store.read_range, url)), mode="r"), pre_buffer=True
    )
