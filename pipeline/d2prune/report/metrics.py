"""Measures of a sample of the pool, as pure functions of arrays: coverage, diversity, clusters, a 2-D map.

Vectors are unit-norm, distances Euclidean (0: the same direction; 2: opposite). Everything random
takes a seed, and the largest temporaries are
the distances of the queries (80 MB for 2,000 of 10,000) and a block of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_ELEMENTS = 16_000_000
NEAR_DUPLICATE = 0.95
"""Cosine similarity from which two samples count as near-duplicates."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FlagShare:
    """How flagged samples fared: what share of them was dropped, beside the share of all samples."""

    flagged: int
    flagged_dropped: int
    samples: int
    dropped: int

    @property
    def share_flagged(self) -> float:
        """Dropped share of the flagged, in [0, 1]; nan where none is flagged."""
        return self.flagged_dropped / self.flagged if self.flagged else float("nan")

    @property
    def share_all(self) -> float:
        """Dropped share of all samples, in [0, 1]; nan where there is none."""
        return self.dropped / self.samples if self.samples else float("nan")


def flag_share(uids: Sequence[str], kept: NDArray[np.bool_], flagged: Collection[str]) -> FlagShare:
    """Count how many of the flagged samples were dropped.

    Args:
        uids: N uids of embedded samples.
        kept: bool [N].
        flagged: uids of interest, for instance planted mismatches; those that are not in `uids` are
            not counted.
    """
    names = frozenset(flagged)
    hit = np.fromiter((uid in names for uid in uids), dtype=bool, count=len(uids))
    return FlagShare(int(hit.sum()), int((hit & ~kept).sum()), len(uids), int((~kept).sum()))


def join_features(image_ND: NDArray[np.float16], text_ND: NDArray[np.float16], features: str) -> Floats:
    """The vectors distances are measured on, unit-norm float32 [N, D] or, for `image+text`, [N, 2 D]."""
    chosen = {"image": (image_ND,), "text": (text_ND,), "image+text": (image_ND, text_ND)}[features]
    joined = np.concatenate([part.astype(np.float32) for part in chosen], axis=1)
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    return np.asarray(joined / np.maximum(norms, 1e-12), dtype=np.float32)


def distances(queries_QD: Floats, points_ND: Floats) -> Floats:
    """Euclidean distances of unit vectors, float32 [Q, N]."""
    out_QN = queries_QD @ points_ND.T
    out_QN *= -2
    out_QN += 2
    np.maximum(out_QN, 0, out=out_QN)
    return np.asarray(np.sqrt(out_QN, out=out_QN), dtype=np.float32)


def nearest_by_fraction(
    near_QN: Floats, queries_Q: NDArray[np.int64], order_N: NDArray[np.int64], sizes_F: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Coverage: mean distance of the queries to the nearest of the first m points of an order.

    Args:
        near_QN: float32 [Q, N], `distances` of the queries to all points: the same for every order
            that is compared.
        queries_Q: which points the queries are.
        order_N: a permutation: who is kept first.
        sizes_F: ascending m >= 1, the last at most N.

    Returns:
        float64 [F]; a query that is itself kept counts as 0.
    """
    if not len(sizes_F) or not len(queries_Q):
        return np.zeros(len(sizes_F))
    total_F = np.zeros(len(sizes_F))
    starts_F = np.concatenate([[0], sizes_F[:-1]])
    last = int(sizes_F[-1])
    rank_N = np.empty(len(order_N), np.int64)
    rank_N[order_N] = np.arange(len(order_N))
    step = max(1, _BLOCK_ELEMENTS // max(last, 1))
    for first in range(0, len(queries_Q), step):
        ordered_QN = near_QN[first : first + step, order_N[:last]]
        own = rank_N[queries_Q[first : first + step]]
        # The distance of a vector to itself comes out as 1e-4 in float32, not 0.
        ordered_QN[np.flatnonzero(own < last), own[own < last]] = 0
        total_F += np.minimum.accumulate(np.minimum.reduceat(ordered_QN, starts_F, axis=1), axis=1).sum(
            axis=0
        )
    return total_F / len(queries_Q)


def nearest_other(near_QN: Floats, queries_Q: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each query to its nearest other point, float64 [Q]; inf where it is alone; arguments as above."""
    rows = np.arange(len(queries_Q))
    own = near_QN[rows, queries_Q]
    near_QN[rows, queries_Q] = np.inf
    nearest = near_QN.min(axis=1, initial=np.inf).astype(np.float64)
    near_QN[rows, queries_Q] = own
    return np.asarray(nearest)


def near_duplicate_share(nearest_Q: NDArray[np.float64]) -> float:
    """Share of samples whose nearest other sample is a near-duplicate; nan where there is none."""
    return float((nearest_Q <= np.sqrt(2 - 2 * NEAR_DUPLICATE)).mean()) if len(nearest_Q) else float("nan")


def effective_directions(points_ND: Floats) -> float:
    """Diversity: the Vendi score of order 1 (Friedman & Dieng 2023) with cosine similarity.

    exp of the entropy of the eigenvalues of X^T X / N: 1 where all vectors are the same, D where
    they spread evenly.
    """
    if not len(points_ND):
        return float("nan")
    wide_ND = points_ND.astype(np.float64)
    # The very same array on both sides: then half of the products are enough.
    values = np.linalg.eigvalsh(wide_ND.T @ wide_ND / len(points_ND))
    values = values[values > 1e-12]
    values /= values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def pca_map(points_ND: Floats) -> tuple[Floats, tuple[float, float]]:
    """The first two principal components.

    Returns:
        float32 [N, 2], and the share of the variance each carries. Signs are fixed: the largest
        loading is positive.
    """
    if len(points_ND) < 2:
        return np.zeros((len(points_ND), 2), np.float32), (0.0, 0.0)
    centred = points_ND.astype(np.float64) - points_ND.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 1)))
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    shares = np.append(np.maximum(values[::-1], 0), 0.0) / max(float(values.sum()), 1e-12)
    return (centred @ axes).astype(np.float32), (float(shares[0]), float(shares[1]))


def cluster_count(samples: int, most: int) -> int:
    """Few enough that each holds about 25 samples."""
    return int(np.clip(samples // 25, 1, max(most, 1)))


def k_means(
    points_ND: Floats, clusters: int, seed: int, rounds: int = 25
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Spherical k-means with k-means++ starts.

    Args:
        points_ND: float32 [N, D], unit-norm, N >= 1.
        clusters: at most N.
        seed: of the starts.
        rounds: at most; it stops when nothing moves.

    Returns:
        int64 [N], the cluster of each point, and unit-norm float32 [C, D] centroids. A cluster may
        stay empty.
    """
    rng = np.random.default_rng(seed)
    centres = points_ND[[int(rng.integers(len(points_ND)))]]
    nearest_N = np.maximum(2 - 2 * (points_ND @ centres[0]), 0).astype(np.float64)
    for _ in range(1, min(clusters, len(points_ND))):
        total = nearest_N.sum()
        if total <= 1e-9:
            break
        chosen = int(np.searchsorted(np.cumsum(nearest_N), rng.random() * total))
        centres = np.vstack([centres, points_ND[min(chosen, len(points_ND) - 1)]])
        nearest_N = np.minimum(nearest_N, np.maximum(2 - 2 * (points_ND @ centres[-1]), 0))
    label_N = np.full(len(points_ND), -1, np.int64)
    for _ in range(rounds):
        before, label_N = label_N, np.asarray((points_ND @ centres.T).argmax(axis=1), dtype=np.int64)
        if np.array_equal(before, label_N):
            break
        for cluster in np.unique(label_N):
            mean = points_ND[label_N == cluster].sum(axis=0)
            centres[cluster] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return label_N, centres


def cluster_shares(label_N: NDArray[np.int64], kept_N: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """(cluster, samples, kept share) of every cluster that has any, the lowest kept share first."""
    rows = [
        (int(cluster), int((label_N == cluster).sum()), float(kept_N[label_N == cluster].mean()))
        for cluster in np.unique(label_N)
    ]
    return sorted(rows, key=lambda row: (row[2], row[0]))
