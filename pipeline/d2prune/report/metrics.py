"""Measures of a sample of the pool, as pure functions of arrays: coverage, diversity, clusters.

N points, Q queries, D dimensions, C clusters, F fractions. Vectors are unit-norm and distances
Euclidean: 0 for equal directions, 2 for opposite ones. The largest temporary is the matrix of query
distances (80 MB for 2,000 queries and 10,000 points). Everything random takes a seed.
"""

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

NEAR_DUPLICATE = 0.95
"""Cosine similarity from which two samples count as near-duplicates."""
_SAMPLES_PER_CLUSTER = 25
_KMEANS_ITERATIONS = 25
_FIT_ROWS = 2_500

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
    # Which of the sizes first includes each point; F if none does.
    since_N = np.full(len(order_N), len(sizes_F), np.int64)
    last = int(sizes_F[-1])
    since_N[order_N[:last]] = np.searchsorted(sizes_F, np.arange(last), side="right")
    nearest_QF = np.full((len(queries_Q), len(sizes_F) + 1), np.inf, np.float32)
    _nearest_since(distances_QN, queries_Q, since_N, nearest_QF)
    return np.asarray(np.minimum.accumulate(nearest_QF[:, :-1], axis=1).mean(axis=0, dtype=np.float64))


@kernel
def _nearest_since(
    distances_QN: Floats, queries_Q: NDArray[np.int64], since_N: NDArray[np.int64], nearest_QF: Floats
) -> None:
    """Each query's distance to the nearest point that a size adds, in one pass; numpy needs a sorted copy."""
    for q in range(distances_QN.shape[0]):
        row_F, row_N = nearest_QF[q], distances_QN[q]
        for n in range(row_N.shape[0]):
            since = since_N[n]
            if row_N[n] < row_F[since]:
                row_F[since] = row_N[n]
        # In float32 the distance of a vector to itself is about 1e-4, not 0.
        row_F[since_N[queries_Q[q]]] = 0


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


def nearest_queries(
    distances_QN: Floats, queries_Q: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], Floats]:
    """The k nearest other queries of each, and their distances, nearest first: int64 and float32 [Q, k].

    Args:
        distances_QN: `distances` of the queries to all points.
        queries_Q: which points the queries are.
        k: less than Q, or 0.
    """
    nearest_QK = np.zeros((len(queries_Q), k), np.int64)
    distances_QK = np.full((len(queries_Q), k), np.inf, np.float32)
    if k:
        _find_nearest(distances_QN, queries_Q, nearest_QK, distances_QK)
    return nearest_QK, distances_QK


@kernel
def _find_nearest(
    distances_QN: Floats, queries_Q: NDArray[np.int64], nearest_QK: NDArray[np.int64], distances_QK: Floats
) -> None:
    """As `np.argpartition` of the queries' columns, without their copy, in a tenth of the time."""
    last = nearest_QK.shape[1] - 1
    for q in range(len(queries_Q)):
        for other in range(len(queries_Q)):
            distance, slot = distances_QN[q, queries_Q[other]], last
            if distance >= distances_QK[q, last] or other == q:
                continue
            while slot > 0 and distance < distances_QK[q, slot - 1]:
                distances_QK[q, slot] = distances_QK[q, slot - 1]
                nearest_QK[q, slot] = nearest_QK[q, slot - 1]
                slot -= 1
            distances_QK[q, slot], nearest_QK[q, slot] = distance, other


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
    # With the same array on both sides, BLAS computes only half of the products.
    values = np.linalg.eigvalsh(points_ND.T @ points_ND / len(points_ND)).astype(np.float64)
    values = values[values > 1e-7]
    values /= values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def copies_share(
    from_E: NDArray[np.int64], to_E: NDArray[np.int64], order_S: NDArray[np.int64], sizes_F: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of the first m samples of an order that have a near-copy among them, for several m.

    Args:
        from_E: int64, ends of the edges between near-copies, in both directions.
        to_E: likewise.
        order_S: a permutation of the samples, the first to be kept first.
        sizes_F: ascending m >= 1.

    Returns:
        float64 [F].
    """
    rank_S = np.empty(len(order_S), np.int64)
    rank_S[order_S] = np.arange(len(order_S))
    # The number of kept samples from which a sample and its first near-copy are both among them.
    since_S = np.full(len(order_S), len(order_S), np.int64)
    np.minimum.at(since_S, from_E, np.maximum(rank_S[from_E], rank_S[to_E]))
    return np.asarray(np.searchsorted(np.sort(since_S), sizes_F) / sizes_F, np.float64)


def cluster_count(samples: int, most: int) -> int:
    """Number of clusters: about one per 25 samples, at most `most`."""
    return int(np.clip(samples // _SAMPLES_PER_CLUSTER, 1, max(most, 1)))


def cluster(points_ND: Floats, n_clusters: int, seed: int) -> tuple[NDArray[np.int64], Floats]:
    """Cluster with Lloyd's k-means, fitted on at most 2,500 of the points.

    The graph's k-means computes distances that every machine rounds alike, for which it loads torch.
    Names of clusters need neither, and matrix products of numpy are ten times as fast.

    Args:
        points_ND: float32 [N, D], contiguous.
        n_clusters: C, 1 <= C <= N.
        seed: chooses the first centroids.

    Returns:
        int64 [N], the cluster of each point, and float32 [C, D] centroids. A cluster may be empty.
    """
    if len(points_ND) > _FIT_ROWS:
        # Centroids hardly move with more points, and each step reads all of them.
        rows = np.random.default_rng([seed, 1]).choice(len(points_ND), _FIT_ROWS, replace=False)
        _, centroids_CD = cluster(points_ND[np.sort(rows)], n_clusters, seed)
        return nearest_centroids(points_ND, centroids_CD), centroids_CD
    centroids_CD = points_ND[_spread_out(points_ND, n_clusters, seed)]
    label_N = nearest_centroids(points_ND, centroids_CD)
    for _ in range(_KMEANS_ITERATIONS):
        # As a product: selecting the points of each cluster would copy all of them.
        is_in_CN = np.equal(label_N, np.arange(n_clusters)[:, None]).astype(np.float32)
        count_C = is_in_CN.sum(axis=1, dtype=np.float64)[:, None]
        means_CD = (is_in_CN @ points_ND) / np.maximum(count_C, 1).astype(np.float32)
        centroids_CD = np.where(count_C > 0, means_CD, centroids_CD)
        before_N, label_N = label_N, nearest_centroids(points_ND, centroids_CD)
        if np.array_equal(before_N, label_N):
            break
    return label_N, centroids_CD


def _spread_out(points_ND: Floats, n_clusters: int, seed: int) -> NDArray[np.int64]:
    """First centroids by k-means++: each drawn by its squared distance to those before it; int64 [C]."""
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(points_ND)))]
    sq_N = np.full(len(points_ND), np.inf)
    while len(chosen) < n_clusters:
        products_N = points_ND @ points_ND[chosen[-1]]
        sq_N = np.minimum(sq_N, np.maximum(2 - 2 * products_N.astype(np.float64), 0))
        sq_N[chosen] = 0
        total = sq_N.sum()
        weights = sq_N / total if total > 0 else None
        chosen.append(int(rng.choice(len(points_ND), p=weights)))
    return np.array(chosen, np.int64)


def nearest_centroids(points_ND: Floats, centroids_CD: Floats) -> NDArray[np.int64]:
    """The centroid nearest to each point, int64 [N]; ties go to the lower one."""
    sq_norm_C = np.einsum("cd,cd->c", centroids_CD, centroids_CD)
    return np.asarray((sq_norm_C - 2 * (points_ND @ centroids_CD.T)).argmin(axis=1), np.int64)


def cluster_shares(label_N: NDArray[np.int64], kept_N: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """(cluster, samples, kept share) of every cluster that is not empty, the lowest kept share first."""
    rows = [
        (int(label), int((label_N == label).sum()), float(kept_N[label_N == label].mean()))
        for label in np.unique(label_N)
    ]
    return sorted(rows, key=lambda row: (row[2], row[0]))
