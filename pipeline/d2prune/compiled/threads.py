"""Threads over ranges of queries: how one process uses several cores in a search.

Invariant: ranges write disjoint rows, so the result is that of one thread. torch's own threads
split one small product and wait for each other; on two loaded cores that was up to ten times slower
than one core. So each thread here runs its products alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def available_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_ranges(
    work: Callable[[int, int], None], n_items: int, threads: int, chunk: int = 16_384
) -> None:
    """Call `work(start, stop)` over consecutive ranges of `range(n_items)`.

    Args:
        work: releases the GIL most of the time; writes only what belongs to its range.
        n_items: end of the last range.
        threads: how many run at once; 1 runs on the calling thread.
        chunk: most items of a range.
    """
    size = max(1, min(chunk, -(-n_items // max(1, threads))))
    starts = range(0, n_items, size)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads <= 1:
            for start in starts:
                work(start, min(start + size, n_items))
            return
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for future in [pool.submit(work, start, min(start + size, n_items)) for start in starts]:
                future.result()
    finally:
        torch.set_num_threads(before)
