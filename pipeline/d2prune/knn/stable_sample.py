"""A random sample of a pool that changes only with the rows that come and go: those of lowest hash.

Reads float32 rows; returns ranks, which are hashes of a row's bytes. Invariant: the sample is a
function of the set of rows, not of their positions or their division into parts. N rows, S sampled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.duplicates import hash_rows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Ranks = NDArray[np.uint64]

NO_RANKS: Ranks = np.zeros(0, np.uint64)


def rank_rows(rows_ND: Float32, seed: int, threads: int = 1) -> Ranks:
    """Return the rank of each row, uint64 [N]; identical rows have the same.

    Args:
        rows_ND: float32 [N, D], contiguous.
        seed: any int >= 0; other seeds give other samples.
        threads: workers; changes speed only.
    """
    with np.errstate(over="ignore"):
        mixed = hash_rows(rows_ND, threads) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        # SplitMix64, so that every bit of the hash decides the order.
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def lowest(rank_N: Ranks, size: int, excluded: Ranks = NO_RANKS) -> Int64:
    """Return the rows of the lowest ranks, int64 [S], by rank; of rows with the same rank, the first.

    Args:
        rank_N: uint64 [N].
        size: S, or fewer where there are fewer ranks.
        excluded: uint64 ranks that are not sampled.
    """
    ranks, first = np.unique(rank_N, return_index=True)
    return first[~np.isin(ranks, excluded)][:size].astype(np.int64)
