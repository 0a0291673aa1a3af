"""Exact duplicates: collapsed into one representative before a search, expanded again after it.

Reads float32 rows in ascending order of canonical position. A list with c identical vectors would
cost c^2 canonical distances, all of them 0; collapsed, it costs one. Invariant: searching the
representatives for K pairs (d2, position) and expanding them gives the same K pairs as searching
every row. Order groups by (d2, lowest position): each of the true K is in one of the first K
groups, because every group before its own holds at least one row that precedes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges
from d2prune.knn.top_k import NO_POSITION, TopK, take

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class DuplicateGroups:
    """N rows as R groups of identical bytes, in ascending order of each group's first row.

    Attributes:
        first_R: int64 [R], row of the representative: the group's lowest; ascending.
        group_N: int64 [N], group of each row.
        indptr: int64 [R+1]; the rows of group g are `rows_N[indptr[g]:indptr[g+1]]`, ascending.
        rows_N: int64 [N].
    """

    first_R: Int64
    group_N: Int64
    indptr: Int64
    rows_N: Int64


def collapse(rows_ND: Float32, threads: int = 1) -> DuplicateGroups:
    """Group rows that have identical bytes.

    Args:
        rows_ND: float32 [N, D], contiguous.
        threads: workers; changes speed only.

    Returns:
        The groups; R = N if all rows differ.
    """
    hashes_N = hash_rows(rows_ND, threads)
    order_N = np.argsort(hashes_N, kind="stable")
    first_of_N = _find_first_identical(rows_ND.view(np.uint32), hashes_N, order_N)
    first_R, group_N = np.unique(first_of_N, return_inverse=True)
    indptr = np.zeros(len(first_R) + 1, np.int64)
    np.cumsum(np.bincount(group_N, minlength=len(first_R)), out=indptr[1:])
    return DuplicateGroups(first_R, group_N.astype(np.int64), indptr, np.argsort(group_N, kind="stable"))


def hash_rows(rows_ND: Float32, threads: int = 1) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row's bytes, uint64 [N].

    Args:
        rows_ND: float32 [N, D], contiguous.
        threads: workers; changes speed only.
    """
    words_ND = rows_ND.view(np.uint32)
    hashes_N = np.empty(len(words_ND), np.uint64)
    parallel_ranges(lambda start, stop: _hash_rows(words_ND, start, stop, hashes_N), len(words_ND), threads)
    return hashes_N


def expand(top: TopK, groups: DuplicateGroups, positions_N: Int64) -> TopK:
    """Replace each representative among the nearest by the rows of its group.

    Args:
        top: K nearest representatives of each query.
        groups: of the members searched; those of a single row may be missing.
        positions_N: int64 [N], canonical position of each row of the groups, ascending within one.

    Returns:
        K nearest rows of each query.
    """
    if len(groups.first_R) == len(groups.group_N):
        return top
    out = TopK.empty(*top.positions.shape)
    _expand_groups(
        top.sq_distances,
        top.positions,
        positions_N[groups.first_R],
        groups.indptr,
        positions_N[groups.rows_N],
        out.sq_distances,
        out.positions,
    )
    return out


@kernel
def _hash_rows(words_ND: NDArray[np.uint32], start: int, stop: int, out_N: NDArray[np.uint64]) -> None:
    for n in range(start, stop):
        h = np.uint64(0x9E3779B97F4A7C15)
        for d in range(words_ND.shape[1]):
            h = (h ^ np.uint64(words_ND[n, d])) * np.uint64(0xFF51AFD7ED558CCD)
            h ^= h >> np.uint64(32)
        out_N[n] = h


@kernel
def _are_equal(a_D: NDArray[np.uint32], b_D: NDArray[np.uint32]) -> bool:
    for d in range(a_D.shape[0]):
        if a_D[d] != b_D[d]:
            return False
    return True


@kernel
def _find_first_identical(
    words_ND: NDArray[np.uint32], hashes_N: NDArray[np.uint64], order_N: Int64
) -> Int64:
    """Return, for each row, the lowest row with the same bytes, not just the same hash."""
    first_N = np.arange(order_N.shape[0])
    start = 0
    for i in range(1, order_N.shape[0]):
        row = order_N[i]
        if hashes_N[row] != hashes_N[order_N[start]]:
            start = i
            continue
        for j in range(start, i):
            earlier = order_N[j]
            if first_N[earlier] == earlier and _are_equal(words_ND[row], words_ND[earlier]):
                first_N[row] = earlier
                break
    return first_N


@kernel
def _expand_groups(
    distances_QK: Float32,
    representatives_QK: Int64,
    first_positions_R: Int64,
    indptr: Int64,
    row_positions_N: Int64,
    out_distances_QK: Float32,
    out_positions_QK: Int64,
) -> None:
    n_queries, n_best = distances_QK.shape
    for q in range(n_queries):
        best_distances, best_positions = out_distances_QK[q], out_positions_QK[q]
        for slot in range(n_best):
            representative, distance = representatives_QK[q, slot], distances_QK[q, slot]
            if representative == NO_POSITION or distance > best_distances[n_best - 1]:
                break
            group = np.searchsorted(first_positions_R, representative)
            if group == len(first_positions_R) or first_positions_R[group] != representative:
                take(best_distances, best_positions, distance, representative)
                continue
            stop = min(indptr[group + 1], indptr[group] + n_best)
            for i in range(indptr[group], stop):
                take(best_distances, best_positions, distance, row_positions_N[i])
