"""Groups lists into partitions of similar size, near lists together so that few queries visit several.

Reads the centroids and the expected rows of each list; returns the partition of each list. It
compares canonical distances only, so every machine gets the same partitions. The graph does not
depend on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.distances import pair_sq_distances

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def group_lists(centroids_LD: Float32, sizes_L: Int64, n_partitions: int) -> Int32:
    """Bisect the lists repeatedly, each time between two distant ones.

    Args:
        centroids_LD: float32 [L, D], contiguous.
        sizes_L: int64 [L], expected rows, in any unit.
        n_partitions: at least 1, at most L.

    Returns:
        int32 [L], the partition of each list. Each partition has at least one list, and exceeds its
        share of the rows by less than one list per bisection.
    """
    partition_L = np.zeros(len(centroids_LD), np.int32)
    pending = [(np.arange(len(centroids_LD)), 0, n_partitions)]
    while pending:
        lists, first, count = pending.pop()
        if count == 1:
            partition_L[lists] = first
            continue
        one = _find_farthest(centroids_LD, lists, lists[0])
        other = _find_farthest(centroids_LD, lists, one)
        difference = _sq_distances(centroids_LD, lists, one) - _sq_distances(centroids_LD, lists, other)
        lists = lists[np.argsort(difference, kind="stable")]
        left = count // 2
        rows = np.cumsum(sizes_L[lists] + 1)
        middles = rows - (sizes_L[lists] + 1) / 2
        cut = int(np.searchsorted(middles, rows[-1] * left / count))
        cut = min(max(cut, left), len(lists) - (count - left))
        pending += [(lists[:cut], first, left), (lists[cut:], first + left, count - left)]
    return partition_L


def _sq_distances(centroids_LD: Float32, lists: Int64, one: int) -> NDArray[np.float64]:
    to_one = np.full(len(lists), one, np.int64)
    distances: Float32 = pair_sq_distances(centroids_LD, lists, centroids_LD, to_one)
    return distances.astype(np.float64)


def _find_farthest(centroids_LD: Float32, lists: Int64, one: int) -> int:
    return int(lists[np.argmax(_sq_distances(centroids_LD, lists, one))])
