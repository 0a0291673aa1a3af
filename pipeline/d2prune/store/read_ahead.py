"""A sequential stream over ranged reads that prefetches the next blocks.

A dropped connection costs one block. Without prefetching, latency limits the speed: blocks of 8 MiB
at 150 ms each are 55 MB/s.
"""

import collections
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

BLOCK = 8 * 2**20
"""Bytes of one read: large compared with the 10-50 ms before a request returns its first byte."""

AHEAD = 2
"""Blocks that are prefetched by default."""


class ReadAhead(io.RawIOBase):
    """A stream over `read(offset, size)`; at most `ahead` + 2 blocks are in memory."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, block: int, ahead: int = AHEAD) -> None:
        """Read nothing yet.

        Args:
            read: returns exactly the bytes asked for, or raises; called from threads.
            size: of the object.
            block: bytes of one read.
            ahead: blocks to prefetch, besides the one in use.
        """
        super().__init__()
        self._read, self._size, self._block_size, self._ahead = read, size, block, ahead
        self._requested = self._position = 0
        self._block = memoryview(b"")
        self._in_flight: collections.deque[Future[bytes]] = collections.deque()
        self._threads: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of a block; raises what `read` raised."""
        if not self._block:
            self._block = memoryview(self._next_block())
        size = min(len(buffer), len(self._block))
        buffer[:size] = self._block[:size]
        self._block = self._block[size:]
        self._position += size
        return size

    def close(self) -> None:
        """Drop prefetched blocks, without waiting for requests in flight."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _next_block(self) -> bytes:
        """The next block; empty at the end. An object of one block needs no threads."""
        if self._threads is None and self._size <= self._block_size:
            start, self._requested = self._requested, self._size
            return self._read(start, self._size - start) if start < self._size else b""
        while len(self._in_flight) <= self._ahead and self._requested < self._size:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._ahead, thread_name_prefix="d2prune-read")
            size = min(self._block_size, self._size - self._requested)
            self._in_flight.append(self._threads.submit(self._read, self._requested, size))
            self._requested += size
        return self._in_flight.popleft().result() if self._in_flight else b""
