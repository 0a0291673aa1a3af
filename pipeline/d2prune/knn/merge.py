"""Merges the results of several searches for the same queries, and removes queries from their own neighbours.

Invariant: the result is the K smallest pairs (d2, canonical position) of the union, in whatever
order the parts arrive. So lists may be grouped into any partitions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.knn.top_k import NO_POSITION, TopK, insert

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def merge(parts: Sequence[TopK]) -> TopK:
    """Return the K nearest over all parts; a pair in several parts counts once.

    Args:
        parts: at least one, all [Q, K] for the same queries.

    Returns:
        A new `TopK`; slots that only held a bound become (inf, NO_POSITION).
    """
    merged = TopK.empty(*parts[0].positions.shape)
    for part in parts:
        merge_into(merged, part)
    return merged


def merge_into(top: TopK, part: TopK) -> None:
    """Merge `part` [Q, K'] into `top` [Q, K] in place; bounds of `top` stay."""
    _merge_into(top.sq_distances, top.positions, part.sq_distances, part.positions)


def without_self(top: TopK, own_Q: Int64) -> TopK:
    """Remove each query from its own K nearest, which leaves the K - 1 nearest others.

    Args:
        top: K nearest of Q queries, searched with the query among the members.
        own_Q: int64 [Q], canonical position of each query.

    Returns:
        [Q, K - 1]. A query that is not among its K nearest, because K identical rows precede it,
        loses its K-th entry instead.
    """
    n_queries, n_best = top.positions.shape
    out = TopK.empty(n_queries, n_best - 1)
    _remove_own(top.sq_distances, top.positions, own_Q, out.sq_distances, out.positions)
    return out


@kernel
def _merge_into(
    distances_QK: Float32, positions_QK: Int64, more_distances_QK: Float32, more_positions_QK: Int64
) -> None:
    n_queries, n_best = distances_QK.shape
    for q in range(n_queries):
        for slot in range(more_positions_QK.shape[1]):
            distance, position = more_distances_QK[q, slot], more_positions_QK[q, slot]
            worst = distances_QK[q, n_best - 1]
            if position == NO_POSITION or distance > worst:
                break
            if distance == worst and position >= positions_QK[q, n_best - 1]:
                continue
            is_held = False
            for other in range(n_best):
                is_held |= positions_QK[q, other] == position
            if not is_held:
                insert(distances_QK[q], positions_QK[q], distance, position)


@kernel
def _remove_own(
    distances_QK: Float32, positions_QK: Int64, own_Q: Int64, out_d: Float32, out_p: Int64
) -> None:
    n_queries, n_best = distances_QK.shape
    for q in range(n_queries):
        write = 0
        for slot in range(n_best):
            position = positions_QK[q, slot]
            if position == own_Q[q] or position == NO_POSITION or write == n_best - 1:
                continue
            out_d[q, write] = distances_QK[q, slot]
            out_p[q, write] = position
            write += 1
