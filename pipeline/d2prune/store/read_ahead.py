"""A sequential stream over ranged reads: a dropped connection costs one block, and the next blocks are under way.

One request at a time gives a store's latency the last word: 8 MiB at 150 ms each are 55 MB/s.
"""

import collections
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

BLOCK = 8 * 2**20
"""Bytes of one read: long beside the 10-50 ms that a request takes to begin."""

AHEAD = 2
"""Blocks under way beside the one that is used, unless the reader asks for more."""


class ReadAhead(io.RawIOBase):
    """`read(offset, size)` -> a stream of `size` bytes; at most `ahead` + 2 blocks are in memory."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, block: int, ahead: int = AHEAD) -> None:
        """Nothing is read yet.

        Args:
            read: gives exactly the bytes asked for, or raises; called from threads.
            size: of the whole object.
            block: bytes of one read.
            ahead: blocks under way beside the one that is used.
        """
        super().__init__()
        self._read, self._size, self._length, self._ahead = read, size, block, ahead
        self._planned = self._position = 0
        self._block = memoryview(b"")
        self._under_way: collections.deque[Future[bytes]] = collections.deque()
        self._threads: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes given out."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """The next bytes, up to the end of a block; raises what `read` raised."""
        if not self._block:
            self._block = memoryview(self._next())
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        self._position += size
        return size

    def close(self) -> None:
        """Forget what is under way; never waits for it."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _next(self) -> bytes:
        if self._threads is None and self._size <= self._length:
            start, self._planned = self._planned, self._size
            return self._read(start, self._size - start) if start < self._size else b""
        while len(self._under_way) <= self._ahead and self._planned < self._size:
            self._threads = self._threads or ThreadPoolExecutor(
                self._ahead, thread_name_prefix="d2prune-read"
            )
            size = min(self._length, self._size - self._planned)
            self._under_way.append(self._threads.submit(self._read, self._planned, size))
            self._planned += size
        return self._under_way.popleft().result() if self._under_way else b""
