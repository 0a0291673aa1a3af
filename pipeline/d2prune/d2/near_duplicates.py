"""Near-duplicates along the kNN graph: which nodes stay, and for which node each of the others is dropped.

Nodes are visited by falling difficulty, ties to the lower position. A node stays unless a near
neighbour already stays; then it is dropped, and its keeper is the nearest of these. That is the
reverse pass with messages that finalise: each node's value is its place in the order, and a node that
stays sends all of its value, which lowers every near neighbour that comes later to zero or below. So
the same kernels and partitions compute it (docs/algorithm.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_finite_scores, as_number
from d2prune.d2 import kernel, whole_graph
from d2prune.d2.api import check_graph
from d2prune.d2.rounds import dense_partitions, run_rounds, split
from d2prune.knn.csr import Graph

_Int64s = NDArray[np.int64]
_Float32s = NDArray[np.float32]

GAMMA = 0.0
"""Decay of the messages: a node that stays sends all of its value."""


def deduplicate(
    graph: Graph,
    difficulty: ArrayLike,
    min_cosine: float,
    partitions: ArrayLike | None = None,
    threads: int | None = None,
) -> _Int64s:
    """Find near-duplicates among the neighbours of a kNN graph.

    Visits the nodes by falling difficulty, ties to the lower index. A node stays unless a neighbour
    at least as similar as `min_cosine` already stays; then it is dropped. This is the greedy maximal
    independent set in that order: every dropped node has a near neighbour that stays, and no two
    nodes that stay are near neighbours. Near-copies that the graph does not join both stay.

    Args:
        graph: symmetric kNN graph over N nodes of unit-norm rows; it is validated.
        difficulty: finite numbers [N]; higher = more wanted.
        min_cosine: lowest cosine of near-duplicates, 0 < min_cosine <= 1.
        partitions: integers [N], the partition of each node. Runs the partitioned algorithm in this
            process; the result is the same.
        threads: of the whole-graph algorithm; default: as for `selection_scores`.

    Returns:
        int64 [N]: for a dropped node its keeper, the nearest near neighbour that stays and comes
        before it (ties: the lower index); -1 for nodes that stay.

    Raises:
        ArgumentError: an invalid graph, difficulty, cosine, partition or number of threads.
    """
    limit = max_sq_distance(min_cosine)
    check_graph(graph)
    key = _order_keys(difficulty, graph.n_nodes)
    near = Graph(*select_edges(graph.indptr, graph.indices, graph.sq_distances, graph.sq_distances <= limit))
    keeper = np.full(graph.n_nodes, -1)
    if partitions is not None:
        owner, n_parts = dense_partitions(partitions, graph.n_nodes)
        parts = split(near, owner, n_parts, key, (None, GAMMA))
        run_rounds(parts)
        for part in parts:
            keeper[part.own_positions], _ = part.nearest_keepers()
        return keeper
    state = kernel.new_state(graph.n_nodes)
    state[0][:] = key
    whole_graph.reverse_pass(near, state, GAMMA, threads)
    kernel.nearest_keepers(
        near.indptr, near.indices, near.sq_distances, np.empty(0, np.int64), key, state[0].copy(), keeper,
        np.empty(graph.n_nodes, np.float32),
    )  # fmt: skip
    return keeper


def max_sq_distance(min_cosine: float) -> np.float32:
    """Return the largest squared distance of near-duplicates, 2 - 2 cos in float32.

    Raises:
        ArgumentError: not 0 < min_cosine <= 1.
    """
    cosine = as_number(min_cosine, "min_cosine", "0 < min_cosine <= 1", lambda value: 0 < value <= 1)
    return np.float32(2 - 2 * cosine)


def select_edges(
    indptr: _Int64s, neighbors: _Int64s, sq_distances: _Float32s, chosen_E: NDArray[np.bool_]
) -> tuple[_Int64s, _Int64s, _Float32s]:
    """Return the rows of a graph with some of its edges, bool [E]."""
    before = np.concatenate([[0], np.cumsum(chosen_E)])
    return before[indptr], neighbors[chosen_E], sq_distances[chosen_E]


def _order_keys(difficulty: ArrayLike, n: int) -> _Int64s:
    """Return integers > 0 in the order of the difficulty, equal for equal ones."""
    score_N = as_finite_scores(difficulty, "difficulty", n)
    return np.unique(score_N, return_inverse=True)[1].astype(np.int64) + 1
