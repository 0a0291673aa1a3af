"""Threads over ranges of items, so that one process uses several cores in a search.

Ranges write disjoint rows, so the result does not depend on the number of threads. torch, or numpy's
BLAS where torch is not installed, runs with one thread meanwhile: its own threads split each small
product and wait for one another, which was up to ten times slower than one core on a machine with
two loaded cores.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from d2prune.extras import is_installed


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_ranges(
    work: Callable[[int, int], None], n_items: int, threads: int, chunk: int = 16_384
) -> None:
    """Call `work(start, stop)` for consecutive ranges of `range(n_items)`.

    Args:
        work: must release the GIL most of the time and write only what belongs to its range.
        n_items: end of the last range.
        threads: number of threads; with 1, `work` runs on the calling thread.
        chunk: largest length of a range.
    """
    size = max(1, min(chunk, -(-n_items // max(1, threads))))
    starts = range(0, n_items, size)
    with _one_thread_a_product():
        if threads <= 1:
            for start in starts:
                work(start, min(start + size, n_items))
            return
        with ThreadPoolExecutor(threads, initializer=_set_torch_threads, initargs=(1,)) as pool:
            for future in [pool.submit(work, start, min(start + size, n_items)) for start in starts]:
                future.result()


@contextlib.contextmanager
def _one_thread_a_product() -> Iterator[None]:
    """Have the library that multiplies use the calling thread only."""
    if not _has_torch():
        with _blas:
            yield
        return
    before = _set_torch_threads(1)
    try:
        yield
    finally:
        if before is not None:
            _set_torch_threads(before)


class _SingleBlasThread:
    """A block in which numpy's BLAS has one thread.

    BLAS has one setting for the whole process, so of blocks that overlap the first sets it and the
    last restores it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _find_blas().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_blas = _SingleBlasThread()


def _has_torch() -> bool:
    return is_installed("torch")


@functools.cache
def _find_blas() -> Any:
    import numpy  # noqa: F401, whose BLAS must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _set_torch_threads(count: int) -> int | None:
    """Set torch's threads in this thread; return their number before; None where torch is not used.

    Work that multiplies with torch has imported it. The import takes a second, so others need not.
    """
    if "torch" not in sys.modules:
        return None
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before
