"""Measures of a sample of the pool, as pure functions of arrays: coverage, diversity, clusters, a 2-D map.

N points, Q queries, D dimensions, C clusters, F fractions. Vectors are unit-norm and distances
Euclidean: 0 for equal directions, 2 for opposite ones. The largest temporary is the matrix of query
distances (80 MB for 2,000 queries and 10,000 points). Everything random takes a seed. Clusters are the
same with and without torch, which takes longer to import than numpy takes for them.
"""

import numpy as np
from numpy.typing import NDArray

NEAR_DUPLICATE = 0.95
"""Cosine similarity from which two samples count as near-duplicates."""
_BLOCK_ELEMENTS = 16_000_000
_SAMPLES_PER_CLUSTER = 25
_KMEANS_ITERATIONS = 25

Floats = NDArray[np.float32]


def distances(queries_QD: Floats, points_ND: Floats) -> Floats:
    """Euclidean distances of unit vectors, float32 [Q, N]."""
    out_QN = queries_QD @ points_ND.T
    out_QN *= -2
    out_QN += 2
    np.maximum(out_QN, 0, out=out_QN)
    return np.asarray(np.sqrt(out_QN, out=out_QN), dtype=np.float32)


def coverage_gaps(
    distances_QN: Floats, queries_Q: NDArray[np.int64], order_N: NDArray[np.int64], sizes_F: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean distance of the queries to the nearest of the first m points of an order, for several m.

    Args:
        distances_QN: `distances` of the queries to all points.
        queries_Q: which points the queries are.
        order_N: a permutation of the points, the first to be kept first.
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
        ordered_QN = distances_QN[first : first + step, order_N[:last]]
        rank_Q = rank_N[queries_Q[first : first + step]]
        # In float32 the distance of a vector to itself is about 1e-4, not 0.
        ordered_QN[np.flatnonzero(rank_Q < last), rank_Q[rank_Q < last]] = 0
        nearest_QF = np.minimum.accumulate(np.minimum.reduceat(ordered_QN, starts_F, axis=1), axis=1)
        total_F += nearest_QF.sum(axis=0)
    return total_F / len(queries_Q)


def nearest_other(distances_QN: Floats, queries_Q: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distance of each query to its nearest other point, float64 [Q]; inf if there is no other point.

    Args:
        distances_QN: `distances` of the queries to all points.
        queries_Q: which points the queries are.
    """
    row_Q = np.arange(len(queries_Q))
    to_self_Q = distances_QN[row_Q, queries_Q]
    distances_QN[row_Q, queries_Q] = np.inf
    nearest_Q = distances_QN.min(axis=1, initial=np.inf).astype(np.float64)
    distances_QN[row_Q, queries_Q] = to_self_Q
    return np.asarray(nearest_Q)


def near_duplicate_share(nearest_Q: NDArray[np.float64]) -> float:
    """Share of samples whose nearest other sample is a near-duplicate; nan if there are none."""
    return float((nearest_Q <= np.sqrt(2 - 2 * NEAR_DUPLICATE)).mean()) if len(nearest_Q) else float("nan")


def effective_directions(points_ND: Floats) -> float:
    """Diversity: the Vendi score of order 1 (Friedman & Dieng 2023) with cosine similarity.

    The exponential of the entropy of the eigenvalues of X^T X / N: 1 if all vectors are equal, D if
    they spread evenly.
    """
    if not len(points_ND):
        return float("nan")
    wide_ND = points_ND.astype(np.float64)
    # With the same array on both sides, BLAS computes only half of the products.
    values = np.linalg.eigvalsh(wide_ND.T @ wide_ND / len(points_ND))
    values = values[values > 1e-12]
    values /= values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def pca_map(points_ND: Floats) -> tuple[Floats, tuple[float, float]]:
    """The first two principal components.

    Returns:
        float32 [N, 2], and the share of the variance along each component. Signs are fixed: the
        largest loading is positive.
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
    """Number of clusters: about one per 25 samples, at most `most`."""
    return int(np.clip(samples // _SAMPLES_PER_CLUSTER, 1, max(most, 1)))


def cluster(points_ND: Floats, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Cluster with the graph's k-means.

    Args:
        points_ND: float32 [N, D], contiguous.
        n_clusters: C, 1 <= C <= N.
        seed: chooses the first centroids.

    Returns:
        int64 [N], the cluster of each point, and float32 [C, D] centroids. A cluster may be empty.
    """
    from d2prune.knn.quantiser import train

    centroids_CD = train(points_ND, n_clusters, seed, _KMEANS_ITERATIONS)
    return nearest_centroids(points_ND, centroids_CD), centroids_CD


def nearest_centroids(points_ND: Floats, centroids_CD: Floats) -> NDArray[np.int64]:
    """The centroid nearest to each point, int64 [N]; ties go to the lower one."""
    from d2prune.knn.quantiser import Quantiser

    return Quantiser(centroids_CD).nearest(points_ND, 1).positions[:, 0]


def cluster_shares(label_N: NDArray[np.int64], kept_N: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """(cluster, samples, kept share) of every cluster that is not empty, the lowest kept share first."""
    rows = [
        (int(label), int((label_N == label).sum()), float(kept_N[label_N == label].mean()))
        for label in np.unique(label_N)
    ]
    return sorted(rows, key=lambda row: (row[2], row[0]))
