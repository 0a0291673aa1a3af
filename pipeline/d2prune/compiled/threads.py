"""Threads over ranges of items, so that one process uses several cores in a search.

Ranges write disjoint rows, so the result does not depend on the number of threads. torch runs with
one thread meanwhile: its own threads split each small product and wait for one another, which was
up to ten times slower than one core on a machine with two loaded cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


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
    before = _set_torch_threads(1)
    try:
        if threads <= 1:
            for start in starts:
                work(start, min(start + size, n_items))
            return
        with ThreadPoolExecutor(threads, initializer=_set_torch_threads, initargs=(1,)) as pool:
            for future in [pool.submit(work, start, min(start + size, n_items)) for start in starts]:
                future.result()
    finally:
        if before is not None:
            _set_torch_threads(before)


def _set_torch_threads(count: int) -> int | None:
    """Set torch's threads in this thread; return their number before; None where torch is not used.

    Work that multiplies with torch has imported it. The import takes a second, so others need not.
    """
    torch = loaded_torch()
    if torch is None:
        return None
    before = int(torch.get_num_threads())
    torch.set_num_threads(count)
    return before


def loaded_torch() -> Any:
    """Return torch if this process has imported it, else None.

    Large products import it first. Small ones, such as those of a report, take less time with numpy
    than the import does.
    """
    return sys.modules.get("torch")
