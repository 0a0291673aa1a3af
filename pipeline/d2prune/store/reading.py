"""Reads: complete objects, ranges and streams.

Files are never mapped into memory: where another program truncates one, the process that reads the
mapping ends with SIGBUS instead of an error.
"""

import contextlib
import functools
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from d2prune.errors import InfrastructureError
from d2prune.redaction import redact
from d2prune.store import read_ahead
from d2prune.store.faults import translated
from d2prune.store.filesystem import is_local_filesystem, open_filesystem
from d2prune.store.listing import info, read_local_status
from d2prune.store.local_disk import TEMPORARY
from d2prune.store.retries import request, retrying


@retrying
def read_bytes(url: str) -> bytes:
    """The content of an object."""
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        read_local_status(url, path)
    with request(url):
        return bytes(filesystem.cat_file(path))


@retrying
def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`.

    Raises:
        InfrastructureError: the object is shorter, so it is not the one that was listed.
    """
    filesystem, path = open_filesystem(url)
    with request(url):
        data = bytes(filesystem.cat_file(path, start=offset, end=offset + size))
    if len(data) != size:
        raise _short_read(url, offset, size, len(data))
    return data


def _open_local(url: str, path: str) -> int:
    read_local_status(url, path)
    with translated(url):
        return os.open(path, os.O_RDONLY)


def _short_read(url: str, offset: int, expected: int, found: int) -> InfrastructureError:
    return InfrastructureError(f"{redact(url)}: found {found} bytes at {offset}; expected {expected}")


@contextlib.contextmanager
def ranged_reader(url: str) -> Iterator[Callable[[int, int], bytes]]:
    """`read(offset, size)` like `read_range`, for many reads: a local file is opened once.

    Raises:
        FileNotFoundError: a local file does not exist; a remote object raises it at the first read.
        InfrastructureError: from `read`, like `read_range`.
    """
    filesystem, path = open_filesystem(url)
    if not is_local_filesystem(filesystem):
        yield functools.partial(read_range, url)
        return
    handle = _open_local(url, path)

    def read(offset: int, size: int) -> bytes:
        with translated(url):
            data = os.pread(handle, size, offset)
            # Linux reads at most 2 GiB per call.
            while len(data) < size:
                more = os.pread(handle, size - len(data), offset + len(data))
                if not more:
                    raise _short_read(url, offset, size, len(data))
                data += more
        return data

    try:
        yield read
    finally:
        os.close(handle)


@contextlib.contextmanager
def local_reader(url: str) -> Iterator[Callable[[int, memoryview], None]]:
    """`fill(offset, memory)`: read bytes of a local file straight into given memory.

    Raises:
        FileNotFoundError: the file does not exist.
        InfrastructureError: from `fill`, if the file ends before the memory does.
    """
    handle = _open_local(url, open_filesystem(url)[1])

    def fill(offset: int, memory: memoryview) -> None:
        done = 0
        # One call, unless a signal interrupts it or the range exceeds 2 GiB.
        while done < len(memory):
            with translated(url):
                count = os.preadv(handle, [memory[done:]], offset + done)
            if not count:
                raise _short_read(url, offset, len(memory), done)
            done += count

    try:
        yield fill
    finally:
        os.close(handle)


def open_read(url: str, ahead: int = read_ahead.AHEAD) -> IO[bytes]:
    """A buffered, sequential binary stream.

    Of a remote object at most `ahead` + 2 blocks of 8 MiB are in memory.
    """
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        return open(_open_local(url, path), "rb", buffering=2**20)
    read = functools.partial(read_range, url)
    stream = read_ahead.ReadAhead(read, info(url).size, read_ahead.BLOCK, ahead)
    return io.BufferedReader(stream, buffer_size=2**20)


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """A local path with the object's content, for libraries that only read local files."""
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        yield path
        return
    folder = tempfile.mkdtemp(prefix=TEMPORARY)
    try:
        target = os.path.join(folder, os.path.basename(path))
        with open_read(url) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)
