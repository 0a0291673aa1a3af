"""Measures recall@k against brute force on a seeded sample, with a confidence interval.

Reads distances or lists of a sample of queries; returns a `Recall`, or the smallest nprobe that
reaches a target. Recall compares distances: of rows tied at the distance of a true neighbour, any
one counts as found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.backend import search_rows
from d2prune.knn.top_k import TopK

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

RECALL_QUERIES = 1_000
"""Size of each of the two samples: one chooses nprobe, the other measures the recall reached."""
NEVER = np.iinfo(np.int64).max
"""Stands for an nprobe where two rows meet at none."""
_Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Recall:
    """A measured recall.

    Attributes:
        value: share of true neighbours found, in [0, 1].
        low: lower end of the 95 % interval.
        high: upper end.
        n_queries: sample size.
    """

    value: float
    low: float
    high: float
    n_queries: int


def recall_samples(n_rows: int, size: int, seed: int) -> tuple[Int64, Int64]:
    """Return two disjoint samples of a pool: one to choose nprobe, one to measure the recall reached.

    Args:
        n_rows: N.
        size: S, limited to max(1, N // 2).
        seed: any int >= 0.

    Returns:
        int64 [S], in random order, and int64 [S], ascending; the second is empty if N < 2.
    """
    size = min(size, max(1, n_rows // 2))
    chosen = np.random.default_rng([seed, 1]).choice(n_rows, min(2 * size, n_rows), replace=False)
    return chosen[:size], np.sort(chosen[size:])


def brute_force(
    queries_QD: Float32, blocks: Iterable[tuple[Float32, Int64]], n_neighbors: int, threads: int = 1
) -> TopK:
    """Return the exact nearest rows of some queries, in a pool read block by block.

    Args:
        queries_QD: float32 [Q, D], contiguous.
        blocks: (rows float32 [M, D], canonical positions int64 [M]); each row of the pool once.
        n_neighbors: K.
        threads: workers; changes speed only.

    Returns:
        The K nearest, including the query's own row if it is in the pool.
    """
    top = TopK.empty(len(queries_QD), n_neighbors)
    for rows_MD, positions_M in blocks:
        search_rows(rows_MD, positions_M, queries_QD, top, threads)
    return top


def measure(found_SK: Float32, true_SK: Float32) -> Recall:
    """Measure the recall@K of a sample.

    Args:
        found_SK: float32 [S, K], squared distances found, ascending; inf where none was found.
        true_SK: float32 [S, K], squared distances by brute force; inf where the pool has no more.
    """
    exists_SK = np.isfinite(true_SK)
    last_S = np.where(exists_SK, true_SK, -np.inf).max(axis=1, initial=-np.inf)
    n_true_S = exists_SK.sum(axis=1)
    hits_S = np.minimum((found_SK <= last_S[:, None]).sum(axis=1), n_true_S)
    return _wilson_interval(hits_S, n_true_S)


def choose_nprobe(
    meets_SK: Int64, exists_SK: NDArray[np.bool_], most: int, target_recall: float
) -> int | None:
    """Return the smallest nprobe whose recall reaches the target with 97.5 % confidence.

    Needs no search: a true neighbour is found if and only if the two rows meet.

    Args:
        meets_SK: int64 [S, K], the least nprobe at which a row and its true neighbour meet, or NEVER.
        exists_SK: bool [S, K], whether there is such a neighbour.
        most: largest nprobe to try.
        target_recall: in (0, 1].

    Returns:
        nprobe, or None if `most` lists do not reach the target.
    """
    n_true_S = exists_SK.sum(axis=1)
    for nprobe in range(1, most + 1):
        hits_S = (exists_SK & (meets_SK <= nprobe)).sum(axis=1)
        recall = _wilson_interval(hits_S, n_true_S)
        if recall.low >= target_recall or recall.value == 1.0:
            return nprobe
    return None


def _wilson_interval(hits_S: Int64, n_true_S: Int64) -> Recall:
    """Return Wilson's interval for the effective sample size.

    Neighbours of one query are found or missed together, so the effective size is below the number
    of pairs.
    """
    n_pairs, n_queries = int(n_true_S.sum()), len(hits_S)
    if n_pairs == 0:
        return Recall(1.0, 1.0, 1.0, n_queries)
    value = float(hits_S.sum()) / n_pairs
    # Variance of a ratio of sums over independent queries (Cochran, Sampling Techniques, 6.3),
    # compared with that of a binomial.
    spread = float(((hits_S - value * n_true_S) ** 2).sum()) / n_pairs**2
    binomial = value * (1 - value) / n_pairs
    effective = n_pairs * min(1.0, binomial / spread) if spread > 0 else float(n_queries)
    square = _Z**2 / effective
    middle = (value + square / 2) / (1 + square)
    half = _Z * math.sqrt(value * (1 - value) / effective + square / (4 * effective)) / (1 + square)
    return Recall(value, max(0.0, middle - half), min(1.0, middle + half), n_queries)
