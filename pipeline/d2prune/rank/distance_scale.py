"""The median squared distance of a stored graph's edges, counted part by part on the workers.

Gives what `d2.gamma.median_sq_distance` gives for the graph in memory. Non-negative float32 numbers
are in the order of their bits, so two histograms of 16 bits find the median exactly, on any number of
workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from d2prune.d2.gamma import median_rank
from d2prune.execution import Executor, InProcess, Resources
from d2prune.parts.files import NEIGHBORS
from d2prune.parts.reader import Parts
from d2prune.store import columns

Int64s = npt.NDArray[np.int64]

_HALF_BITS = 16
_BINS = 1 << _HALF_BITS
# Reading so many edges takes a second, less than starting workers does.
_FEW = 20_000_000


@dataclass(frozen=True)
class _Count:
    """Distances to count.

    Attributes:
        parts: numbers of the parts to read.
        upper: upper half of the bits. None: count all distances by their upper half; otherwise those
            that start with it, by their lower half.
    """

    parts: range
    upper: int | None


def find_median_sq_distance(parts: Parts, executor: Executor, resources: Resources) -> float | None:
    """Return the median squared distance of the edges; None if no edge is longer than 0.

    Args:
        parts: the pool, with the units of graph.
        executor: runs the workers.
        resources: of one worker.
    """
    if sum(parts.receipt(part, NEIGHBORS).counters["edges"] for part in range(parts.spans.n_parts)) < _FEW:
        executor = InProcess()
    n_ranges = max(1, min(resources.workers, parts.spans.n_parts))
    bounds = np.linspace(0, parts.spans.n_parts, n_ranges + 1).astype(int).tolist()
    ranges = [range(first, stop) for first, stop in pairwise(bounds)]

    def count(upper: int | None) -> Int64s:
        units = [_Count(numbers, upper) for numbers in ranges]
        total = np.zeros(_BINS + 1, np.int64)
        for counts in executor.map(partial(_Counter, parts), units, resources):
            total += counts
        return total

    *counts, zeros = count(None).tolist()
    rank = median_rank(sum(counts), zeros)
    if rank is None:
        return None
    upper, rank = _find_bin(counts, rank)
    lower, _ = _find_bin(count(upper).tolist()[:-1], rank)
    return float(np.array([upper << _HALF_BITS | lower], np.uint32).view(np.float32)[0])


def _find_bin(counts: Sequence[int], rank: int) -> tuple[int, int]:
    """Return the bin that holds the element of a rank, and its rank within the bin."""
    ends = np.cumsum(counts)
    found = int(np.searchsorted(ends, rank, side="right"))
    return found, rank - int(ends[found] - counts[found])


class _Counter:
    """Counts the distances of some parts; returns int64 [2**16 + 1], the last entry counting zeros."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __call__(self, unit: _Count) -> Int64s:
        counts = np.zeros(_BINS + 1, np.int64)
        for part in unit.parts:
            table = self._parts.read(part, NEIGHBORS, ["sq_distances"])
            bits_E = columns.ragged(table["sq_distances"]).astype(np.float32, copy=False).view(np.uint32)
            counts[-1] += len(bits_E) - np.count_nonzero(bits_E)
            if unit.upper is None:
                half_E = bits_E >> _HALF_BITS
            else:
                half_E = bits_E[bits_E >> _HALF_BITS == unit.upper] & (_BINS - 1)
            counts[:-1] += np.bincount(half_E, minlength=_BINS)
        return counts
