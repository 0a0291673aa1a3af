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
from d2prune.store.artifacts import FileRecord
from d2prune.store.filesystem import is_local, is_local_filesystem, open_filesystem
from d2prune.store.parquet_format import footer_checksum
from d2prune.store.read_ahead import ReadAhead

_BLOCK = 1 << 20
# Bytes read at the end of a parquet file; a larger footer takes a second request.
_FOOTER = 1 << 16


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
def open_ranges(file: FileInfo, since: str = "this run began") -> Iterator[Callable[[int, int], bytes]]:
    """`read(offset, size)` of a file, like `store.ranged_reader`, if the file is as it was listed.

    Args:
        file: as it was listed.
        since: when that was, for messages.

    Raises:
        UserError: it is gone or has changed.
    """
    # Not around the `yield`: what the caller's block raises concerns other files.
    with _explain_missing(file, since):
        now = store.info(file.url)
    if (now.size, now.version) != (file.size, file.version):
        found, expected = (
            f"{one.size} bytes" + (f", version {one.version}" if now.size == file.size else "")
            for one in (now, file)
        )
        raise UserError(
            f"{store.redact(file.url)}: changed since {since}: found {found}; expected {expected}; "
            "run again to read the new content"
        )
    with contextlib.ExitStack() as stack:
        with _explain_missing(file, since):
            read = stack.enter_context(store.ranged_reader(file.url))

        def read_existing(offset: int, size: int) -> bytes:
            with _explain_missing(file, since):
                return read(offset, size)

        yield read_existing


@contextlib.contextmanager
def _explain_missing(file: FileInfo, since: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{store.redact(file.url)}: not found; expected {file.size} bytes, as when {since}; put it back, "
            "or run again with the input where it is now"
        ) from error


def read_blocks(
    file: FileInfo, read: Callable[[int, int], bytes], start: int, size: int, block: int
) -> Iterator[bytes]:
    """A range of an open file in consecutive blocks; of a remote one, the next blocks are prefetched.

    Args:
        file: the file.
        read: from `open_ranges`.
        start: of the range.
        size: of the range.
        block: bytes of each block but the last.
    """
    if is_local(file.url):
        for offset in range(0, size, block):
            yield read(start + offset, min(block, size - offset))
        return
    with ReadAhead(lambda offset, count: read(start + offset, count), size, block) as stream:
        while data := stream.read(block):
            yield data


@contextlib.contextmanager
def open_seekable(file: FileInfo) -> Iterator[IO[bytes]]:
    """A file as a buffered, seekable stream; raises what `open_ranges` does."""
    with open_ranges(file) as read:
        yield seekable(file, read)


def seekable(file: FileInfo, read: Callable[[int, int], bytes]) -> IO[bytes]:
    """A buffered, seekable stream over the reader of an open file."""
    return io.BufferedReader(RangeFile(file.size, read), _BLOCK)


def open_parquet(url: str, file: FileRecord) -> pq.ParquetFile:
    """A table of a unit, read as needed and verified where it is read.

    The footer is compared with its checksum in the record, and each page with its own as it is read.

    Args:
        url: of the file.
        file: its record.

    Raises:
        ArrowInvalid: the footer is damaged. Reading a damaged page raises OSError.
    """
    filesystem, path = open_filesystem(url)
    is_local = is_local_filesystem(filesystem)
    if is_local:
        source: pa.NativeFile = pa.OSFile(path)
    else:
        stream = RangeFile(file.size, functools.partial(store.read_range, url))
        source = pa.PythonFile(stream, mode="r")
    metadata = _read_footer(source, file)
    return pq.ParquetFile(source, metadata=metadata, pre_buffer=not is_local, page_checksum_verification=True)


def _read_footer(source: pa.NativeFile, file: FileRecord) -> pq.FileMetaData:
    source.seek(max(file.size - _FOOTER, 0))
    data = source.read(min(file.size, _FOOTER))
    length = int.from_bytes(data[-8:-4], "little") + 8
    if len(data) < length <= file.size:
        source.seek(file.size - length)
        data = source.read(length)
    found = footer_checksum(data)
    if found != file.footer:
        raise pa.ArrowInvalid(f"found footer checksum {found}; expected {file.footer} as in its receipt")
    return pq.read_metadata(pa.BufferReader(data))
