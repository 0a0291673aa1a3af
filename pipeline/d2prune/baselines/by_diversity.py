"""Baselines whose picks depend on earlier picks. The package docstring lists their invariants.

k_center and herding compare every sample with every pick, N x m distances; facility_location and
info_max walk the sparse graph; semdedup compares within clusters. All of them hold the pool in memory.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_rows
from d2prune.baselines.order import Int64, check_score, sort_positions
from d2prune.compiled.decorator import kernel
from d2prune.d2.fixed_point import SCALE, message, to_signed_fixed
from d2prune.d2.gamma import resolve_gammas
from d2prune.errors import ArgumentError
from d2prune.knn.csr import Graph
from d2prune.knn.distances import sq_distance
from d2prune.knn.features import unit_rows

Float32 = NDArray[np.float32]

_ONE = int(SCALE)
_ITERATIONS = 10


def k_center(embeddings: NDArray[Any], m: int | None = None, seed: int = 0) -> Int64:
    """Order samples by greedy k-centre: each pick is farthest from all earlier picks.

    Sener, Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR
    2018, arXiv 1708.00489.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        m: number of picks; None: all samples.
        seed: of the first pick, which is random.

    Returns:
        int64 [m].

    Raises:
        ArgumentError: m is out of range, or a row cannot be normalised.
    """
    rows_ND = unit_rows(as_rows(embeddings))
    start = int(np.random.default_rng(seed).integers(len(rows_ND)))
    order: Int64 = _k_center(rows_ND, start, _check_size(m, len(rows_ND)))
    return order


def herding(embeddings: NDArray[Any], m: int | None = None) -> Int64:
    """Order samples by herding: each pick brings the mean of the picks closest to the pool's mean.

    Welling, ICML 2009; Chen, Welling, Smola, UAI 2010. w starts as the mean of the pool; each step
    picks the sample v with the highest <w, v>, then adds mean - v to w.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        m: number of picks; None: all samples.

    Returns:
        int64 [m].

    Raises:
        ArgumentError: as for `k_center`.
    """
    rows_ND = unit_rows(as_rows(embeddings))
    order: Int64 = _herding(rows_ND, _check_size(m, len(rows_ND)))
    return order


def facility_location(graph: Graph, m: int | None = None, gamma: float | str = 1.0) -> Int64:
    """Order samples by facility location: each pick adds most to the total similarity to picks.

    Greedy algorithm for submodular facility location (Nemhauser et al., 1978; Lin, Bilmes, ACL 2011)
    with lazy evaluation (Minoux, 1978), on the sparse graph: similarity is exp(-gamma d^2) along an
    edge, 1 between a sample and itself, 0 otherwise. Gains are int64 in units of 2**-40, so ties are
    exact. Samples that add nothing come last, in order of position.

    Args:
        graph: over N nodes.
        m: number of picks; None: all samples.
        gamma: decay of the similarity: a number, or a multiple as for `selection_scores`.

    Returns:
        int64 [m].

    Raises:
        ArgumentError: the graph or gamma is invalid, or m is out of range.
    """
    graph.validate()
    decay, _ = resolve_gammas(gamma, 0.0, graph.sq_distances, "sample")
    wanted = _check_size(m, graph.n_nodes)
    best_N = np.zeros(graph.n_nodes, np.int64)
    arrays = (graph.indptr, graph.indices, graph.sq_distances, decay, best_N)
    # Gains only fall, so an old gain is an upper bound: the top of the heap is the next pick if its
    # gain is up to date.
    heap = [(-_gain(*arrays, u), u) for u in range(graph.n_nodes)]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < wanted:
        stored, u = heap[0]
        gain = _gain(*arrays, u)
        if gain != -stored:
            heapq.heapreplace(heap, (-gain, u))
            continue
        heapq.heappop(heap)
        order.append(u)
        _cover(*arrays, u)
    return np.array(order, np.int64)


def info_max(graph: Graph, score: ArrayLike, alpha: float, m: int | None = None) -> Int64:
    """Order samples by InfoMax's objective: each pick adds most to score minus redundancy.

    Tan et al., "Data Pruning by Information Maximization", ICLR 2025, arXiv 2506.01701: the subset of
    m samples with the largest sum of scores minus alpha times the sum of cosines over its ordered
    pairs. As there, cosines are those of the sparse graph, here 1 - d^2 / 2 along an edge, and 0 if
    negative. The paper relaxes the problem and climbs its gradient; this picks greedily, so that one
    order serves every m: a pick lowers its neighbours by 2 alpha times the cosine, whatever its own
    score. Sums are int64 in units of 2**-40, so ties are exact.

    Args:
        graph: over N nodes.
        score: finite numbers [N]; higher = more wanted.
        alpha: weight of redundancy, 0 to 100, in units of the score.
        m: number of picks; None: all samples.

    Returns:
        int64 [m].

    Raises:
        ArgumentError: the graph is invalid, a score or alpha is out of range, or sizes do not match.
    """
    graph.validate()
    if not 0 <= alpha <= 100:
        raise ArgumentError(f"alpha: found {alpha}; expected 0 to 100")
    gain_N = to_signed_fixed(check_score(score))
    if len(gain_N) != graph.n_nodes:
        raise ArgumentError(f"score has {len(gain_N)} entries, expected one per node ({graph.n_nodes})")
    wanted = _check_size(m, graph.n_nodes)
    cosine_E = np.maximum(1.0 - graph.sq_distances.astype(np.float64) / 2, 0.0)
    cost_E = np.rint(2 * alpha * cosine_E * SCALE).astype(np.int64)
    heap = [(-gain, u) for u, gain in enumerate(gain_N.tolist())]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < wanted:
        # As in facility_location: gains only fall.
        stored, u = heap[0]
        gain = int(gain_N[u])
        if gain != -stored:
            heapq.heapreplace(heap, (-gain, u))
            continue
        heapq.heappop(heap)
        order.append(u)
        edges = slice(graph.indptr[u], graph.indptr[u + 1])
        gain_N[graph.indices[edges]] -= cost_E[edges]
    return np.array(order, np.int64)


def semdedup(
    embeddings: NDArray[Any], n_clusters: int, score: ArrayLike | None = None, seed: int = 0
) -> tuple[Int64, Float32]:
    """Order samples by SemDeDup, semantic duplicates last.

    Abbas et al., "SemDeDup", arXiv 2303.09540, algorithm 1. The samples of each k-means cluster are
    sorted; a sample is a duplicate if its similarity to one earlier in its cluster exceeds 1 -
    epsilon. The paper sorts by rising similarity to the centroid; given a `score`, this sorts by
    falling score instead.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        n_clusters: 1 <= n_clusters <= N.
        score: finite numbers [N]; of two duplicates, the one with the higher score is kept.
        seed: of the k-means start.

    Returns:
        (order int64 [N], by falling distance; sq_distances float32 [N], squared distance to the
        nearest earlier sample of the cluster, inf for the first). SemDeDup with a given epsilon
        keeps `sq_distances >= 2 * epsilon`.

    Raises:
        ArgumentError: n_clusters is out of range, a row cannot be normalised, or the score has another
            length.
    """
    # Imported here: these load torch, which no other baseline needs.
    from d2prune.compiled.threads import available_cores
    from d2prune.knn.quantiser import Quantiser, train

    rows_ND = unit_rows(as_rows(embeddings))
    if not 1 <= n_clusters <= len(rows_ND):
        raise ArgumentError(
            f"n_clusters is {n_clusters}, expected 1 to {len(rows_ND)}, the number of samples"
        )
    threads = available_cores()
    nearest = Quantiser(train(rows_ND, n_clusters, seed, _ITERATIONS, threads)).nearest(rows_ND, 1, threads)
    priority_N = nearest.sq_distances[:, 0].astype(np.float64)
    if score is not None:
        priority_N = check_score(score)
        if len(priority_N) != len(rows_ND):
            raise ArgumentError(
                f"score has {len(priority_N)} entries, expected one per embedding ({len(rows_ND)})"
            )
    cluster_N = nearest.positions[:, 0]
    sorted_N = np.lexsort((-priority_N, cluster_N))
    distance_N: Float32 = _distances_to_earlier(rows_ND, sorted_N, cluster_N)
    return sort_positions(-distance_N), distance_N


def _check_size(m: int | None, n: int) -> int:
    """Return m, or n for None, after checking its range."""
    if m is not None and not 1 <= m <= n:
        raise ArgumentError(f"size is {m}, expected 1 <= size <= {n}, the number of samples")
    return n if m is None else m


@kernel
def _k_center(rows_ND: Float32, start: int, m: int) -> Int64:
    n = rows_ND.shape[0]
    order, nearest_N = np.empty(m, np.int64), np.full(n, np.inf, np.float32)
    pick = start
    for step in range(m):
        order[step] = pick
        nearest_N[pick] = -1.0
        farthest = -1
        for i in range(n):
            if nearest_N[i] >= 0.0:
                nearest_N[i] = min(nearest_N[i], sq_distance(rows_ND[i], rows_ND[pick]))
                if farthest < 0 or nearest_N[i] > nearest_N[farthest]:
                    farthest = i
        pick = farthest
    return order


@kernel
def _herding(rows_ND: Float32, m: int) -> Int64:
    n, n_dims = rows_ND.shape
    order, picked_N = np.empty(m, np.int64), np.zeros(n, np.bool_)
    mean_D = np.zeros(n_dims)
    for i in range(n):
        for d in range(n_dims):
            mean_D[d] += np.float64(rows_ND[i, d])
    mean_D /= n
    want_D = mean_D.copy()
    for step in range(m):
        pick, best = -1, -np.inf
        for i in range(n):
            if not picked_N[i]:
                product = 0.0
                for d in range(n_dims):
                    product += want_D[d] * np.float64(rows_ND[i, d])
                if pick < 0 or product > best:
                    pick, best = i, product
        order[step] = pick
        picked_N[pick] = True
        for d in range(n_dims):
            want_D[d] += mean_D[d] - np.float64(rows_ND[pick, d])
    return order


@kernel
def _gain(indptr: Int64, indices: Int64, sq_distances: Float32, gamma: float, best_N: Int64, u: int) -> int:
    """Return how much picking u adds; `best_N` is the similarity to the nearest pick so far."""
    gain = max(0, _ONE - best_N[u])
    for e in range(indptr[u], indptr[u + 1]):
        gain += max(0, message(_ONE, gamma, sq_distances[e]) - best_N[indices[e]])
    return int(gain)


@kernel
def _cover(indptr: Int64, indices: Int64, sq_distances: Float32, gamma: float, best_N: Int64, u: int) -> None:
    """Update `best_N` for the pick u."""
    best_N[u] = _ONE
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        best_N[v] = max(best_N[v], message(_ONE, gamma, sq_distances[e]))


@kernel
def _distances_to_earlier(rows_ND: Float32, sorted_N: Int64, cluster_N: Int64) -> Float32:
    """Compute each row's squared distance to the nearest row before it in its cluster."""
    out = np.full(len(sorted_N), np.inf, np.float32)
    start = 0
    for k in range(len(sorted_N)):
        i = sorted_N[k]
        if cluster_N[i] != cluster_N[sorted_N[start]]:
            start = k
        for earlier in range(start, k):
            out[i] = min(out[i], sq_distance(rows_ND[i], rows_ND[sorted_N[earlier]]))
    return out
