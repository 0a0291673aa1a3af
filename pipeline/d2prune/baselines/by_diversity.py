"""Baselines that look at what was picked before. See the package for what all of them share.

k_center and herding compare every sample with every pick, N x m distances; facility_location walks
the sparse graph; semdedup compares within clusters. All of them hold the pool in one memory.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.baselines.order import Int64, ascending, checked_score
from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import available_cores
from d2prune.d2.fixed_point import SCALE, check_gamma, message
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.distances import sq_distance
from d2prune.knn.features import unit_rows
from d2prune.knn.quantiser import Quantiser, train

Float32 = NDArray[np.float32]

_ONE = int(SCALE)
_ITERATIONS = 10


def k_center(embeddings: NDArray[Any], m: int | None = None, seed: int = 0) -> Int64:
    """Greedy k-centre: each pick is the sample farthest from all picks so far (Sener, Savarese, arXiv 1708.00489).

    Args:
        embeddings: floats [N, D]; rows are normalised.
        m: how many to pick; None: all.
        seed: of the first pick.

    Returns:
        int64 [m].

    Raises:
        UserError: m out of range, or rows that cannot be normalised.
    """
    rows_ND = unit_rows(np.asarray(embeddings))
    start = int(np.random.default_rng(seed).integers(len(rows_ND)))
    order: Int64 = _k_center(rows_ND, start, _size(m, len(rows_ND)))
    return order


def herding(embeddings: NDArray[Any], m: int | None = None) -> Int64:
    """Each pick brings the picks' mean nearest to the pool's (Welling, ICML 2009; Chen, Welling, Smola, UAI 2010).

    With w starting at the pool's mean: pick the highest <w, v>, then w += mean - v.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        m: how many to pick; None: all.

    Returns:
        int64 [m].

    Raises:
        UserError: as `k_center`.
    """
    rows_ND = unit_rows(np.asarray(embeddings))
    order: Int64 = _herding(rows_ND, _size(m, len(rows_ND)))
    return order


def facility_location(graph: Graph, m: int | None = None, gamma: float = 1.0) -> Int64:
    """Each pick adds most to the sum over all samples of the similarity to their nearest pick.

    Greedy for the submodular facility location (Nemhauser et al., 1978; Lin, Bilmes, ACL 2011),
    lazily (Minoux, 1978), on the sparse graph: similarity exp(-gamma d^2) along edges, 1 with
    itself, 0 elsewhere. Gains are int64 in units of 2**-40, so equal gains are equal; those that
    add nothing come last, in order of position.

    Args:
        graph: over N nodes.
        m: how many to pick; None: all.
        gamma: kernel width.

    Returns:
        int64 [m].

    Raises:
        UserError: an invalid graph or gamma, or m out of range.
    """
    graph.validate()
    gamma = check_gamma("gamma", gamma)
    wanted = _size(m, graph.n_nodes)
    best_N = np.zeros(graph.n_nodes, np.int64)
    arrays = (graph.indptr, graph.indices, graph.sq_distances, gamma, best_N)
    # Gains only fall, so an old one is an upper bound: the top is the next pick if it is up to date.
    heap = [(-_gain(*arrays, u), u) for u in range(graph.n_nodes)]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < wanted:
        known, u = heap[0]
        gain = _gain(*arrays, u)
        if gain != -known:
            heapq.heapreplace(heap, (-gain, u))
            continue
        heapq.heappop(heap)
        order.append(u)
        _cover(*arrays, u)
    return np.array(order, np.int64)


def semdedup(
    embeddings: NDArray[Any], n_clusters: int, score: ArrayLike | None = None, seed: int = 0
) -> tuple[Int64, Float32]:
    """Semantic duplicates last: by how far a sample lies from all that come before it in its cluster.

    Abbas et al., "SemDeDup", arXiv 2303.09540, algorithm 1: within each k-means cluster samples
    stand in a line, and one whose similarity to any before it is above 1 - epsilon is a duplicate.
    Their line begins with the sample least like the centroid; with a `score` it begins with the highest.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        n_clusters: 1 <= n_clusters <= N.
        score: [N], higher = rather kept of two duplicates.
        seed: of the k-means start.

    Returns:
        (order int64 [N], farthest first; sq_distances float32 [N], squared distance to the nearest
        before it in its cluster, inf for the first). SemDeDup at epsilon keeps `sq_distances >= 2 * epsilon`.

    Raises:
        UserError: fewer samples than clusters, or rows that cannot be normalised.
    """
    rows_ND = unit_rows(np.asarray(embeddings))
    if not 1 <= n_clusters <= len(rows_ND):
        raise UserError(f"n_clusters is {n_clusters}, expected 1 to {len(rows_ND)}, the number of samples")
    threads = available_cores()
    nearest = Quantiser(train(rows_ND, n_clusters, seed, _ITERATIONS, threads)).nearest(rows_ND, 1, threads)
    priority_N = nearest.sq_distances[:, 0].astype(np.float64)
    if score is not None:
        priority_N = checked_score(score)
        if len(priority_N) != len(rows_ND):
            raise UserError(
                f"score has {len(priority_N)} entries, expected one for each of {len(rows_ND)} embeddings"
            )
    cluster_N = nearest.positions[:, 0]
    line_N = np.lexsort((-priority_N, cluster_N))
    distance_N: Float32 = _before_in_line(rows_ND, line_N, cluster_N)
    return ascending(-distance_N), distance_N


def _size(m: int | None, n: int) -> int:
    if m is not None and not 1 <= m <= n:
        raise UserError(f"size is {m}, expected 1 <= size <= {n}, the samples there are to choose from")
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
    gain = max(0, _ONE - best_N[u])
    for e in range(indptr[u], indptr[u + 1]):
        gain += max(0, message(_ONE, gamma, sq_distances[e]) - best_N[indices[e]])
    return int(gain)


@kernel
def _cover(indptr: Int64, indices: Int64, sq_distances: Float32, gamma: float, best_N: Int64, u: int) -> None:
    best_N[u] = _ONE
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        best_N[v] = max(best_N[v], message(_ONE, gamma, sq_distances[e]))


@kernel
def _before_in_line(rows_ND: Float32, line_N: Int64, cluster_N: Int64) -> Float32:
    out = np.full(len(line_N), np.inf, np.float32)
    start = 0
    for place in range(len(line_N)):
        i = line_N[place]
        if cluster_N[i] != cluster_N[line_N[start]]:
            start = place
        for before in range(start, place):
            out[i] = min(out[i], sq_distance(rows_ND[i], rows_ND[line_N[before]]))
    return out
