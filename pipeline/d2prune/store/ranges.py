"""Files at any URL as seekable streams of ranged reads, for libraries that seek (zip, parquet).

Only the bytes that are asked for are read, in blocks large enough to be worth a request. The file
must be the one that was listed: artifacts are identified by what was listed, so a different size or
version is an error.
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
from d2prune.store.filesystem import is_local_filesystem, open_filesystem

_BLOCK = 1 << 20


class RangeFile(io.RawIOBase):
    """A stream over `read(offset, size)`."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        """Read nothing yet; `size` is that of the file."""
        self._size, self._read, self._position = size, read, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True; seeking makes no request."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, offset + base)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """See `io.RawIOBase.readinto`."""
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        buffer[:size] = self._read(self._position, size)
        self._position += size
        return size


@contextlib.contextmanager
def open_ranges(file: FileInfo) -> Iterator[Callable[[int, int], bytes]]:
    """`read(offset, size)` of a file, like `store.ranged_reader`, if the file is as it was listed.

    Raises:
        UserError: it is gone or has changed.
    """
    url = store.redact(file.url)
    try:
        now = store.info(file.url)
        if (now.size, now.version) != (file.size, file.version):
            raise UserError(f"{url}: changed since this run began; run again to read the new content")
        with store.ranged_reader(file.url) as read:
            yield read
    except FileNotFoundError as error:
        raise UserError(f"{url}: not found; it was there when this run began") from error


@contextlib.contextmanager
def open_seekable(file: FileInfo) -> Iterator[IO[bytes]]:
    """A file as a buffered, seekable stream; raises what `open_ranges` does."""
    with open_ranges(file) as read:
        yield io.BufferedReader(RangeFile(file.size, read), _BLOCK)


def open_parquet(url: str, size: int) -> pq.ParquetFile:
    """A parquet file of `size` bytes, read as needed."""
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        return pq.ParquetFile(path)
    stream = RangeFile(size, functools.partial(store.read_range, url))
    return pq.ParquetFile(pa.PythonFile(stream, mode="r"), pre_buffer=True)
