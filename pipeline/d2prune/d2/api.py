"""Selection scores of a pool in memory: numpy arrays in, numpy arrays out.

`selection_scores` returns the scores alone; `select` also returns forward scores and suppressors.
Both return the same bits for any number of threads and any partitioning (docs/algorithm.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2 import kernel, whole_graph
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.gamma import AUTO, DifficultyKind, resolve_gammas
from d2prune.d2.rounds import dense_partitions, run_rounds, split
from d2prune.errors import ArgumentError
from d2prune.knn.csr import Graph


@dataclass(frozen=True)
class Selection:
    """The result of D2 Pruning for each of N nodes. Scores are int64 in units of 2**-40.

    Attributes:
        forward_score: int64 [N], x after the forward pass (paper equation 1).
        selection_score: int64 [N], t: the node's value when it is picked. For every m, the coreset of
            size m is the m highest, ties to the lower index.
        suppressed_by: int64 [N], the node that sent this one the largest reverse message (ties: the
            lower index); -1 if it received none.
        suppression: int64 [N], that message; 0 if there is none.
        rounds: exchange rounds of the reverse pass between partitions; 1 without partitions.
        messages: entries exchanged between partitions, 12 bytes each; 0 without partitions.
    """

    forward_score: NDArray[np.int64]
    selection_score: NDArray[np.int64]
    suppressed_by: NDArray[np.int64]
    suppression: NDArray[np.int64]
    rounds: int
    messages: int


def selection_scores(
    graph: Graph,
    difficulty: ArrayLike,
    gamma_forward: float | str = AUTO,
    gamma_reverse: float | str = AUTO,
    partitions: ArrayLike | None = None,
    threads: int | None = None,
    difficulty_kind: DifficultyKind = "training",
) -> NDArray[np.int64]:
    """Rank every node of a kNN graph by D2 Pruning.

    Maharana, Yadav, Bansal, arXiv 2310.07931. The forward pass adds to each node's difficulty what
    its neighbours contribute (equation 1). The reverse pass picks the node of highest value, lowers
    its neighbours (equation 2) and repeats. The selection score of a node is its value at the moment
    it is picked. Both passes are carried to the end of the pool, so one call ranks it for every
    budget: the coreset of size m is the m highest scores, ties to the lower index.

    Differs from the paper in one point: a node picked at a negative value sends no message, where
    the paper's equation would raise its neighbours. As long as picks are positive, both agree.

    Args:
        graph: symmetric kNN graph over N nodes, N < 2**31 - 1; it is validated.
        difficulty: real numbers [N], 0 <= difficulty < 2**22; higher = more wanted.
        gamma_forward: decay of the forward messages, exp(-gamma * d^2): a number >= 0, a multiple of
            the graph's scale such as `4/median` (4 over the median squared distance of its edges), or
            `auto`, which depends on `difficulty_kind`.
        gamma_reverse: decay of the reverse messages, likewise.
        partitions: integers [N], the partition of each node. Runs the partitioned algorithm in this
            process; the result is the same, bit for bit.
        threads: threads of the whole-graph algorithm; default: the CPUs available to this process,
            at most one per 50,000 nodes. The result is the same for any number.
        difficulty_kind: what the difficulty judges; decides the gammas that are `auto`. `training`: a
            noisy trace of training that neighbours share, such as AUM; 0.3/median forward, 1/median
            reverse. `sample`: each sample by itself, such as a CLIP score; 8/median and
            10/median.

    Returns:
        int64 [N], in fixed point: units of 2**-40 of the difficulty.

    Raises:
        ArgumentError: an invalid graph, difficulty, gamma, partition or number of threads, or a node
            value that exceeds +-2**22.
    """
    check_graph(graph)
    gammas = resolve_gammas(gamma_forward, gamma_reverse, graph.sq_distances, difficulty_kind)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions).selection_score
    return compute_scores(graph, difficulty, gammas, threads)[1]


def select(
    graph: Graph,
    difficulty: ArrayLike,
    gamma_forward: float | str = AUTO,
    gamma_reverse: float | str = AUTO,
    partitions: ArrayLike | None = None,
    threads: int | None = None,
    difficulty_kind: DifficultyKind = "training",
) -> Selection:
    """Rank every node like `selection_scores`, and return forward scores and suppressors as well.

    Args:
        graph: as for `selection_scores`.
        difficulty: as for `selection_scores`.
        gamma_forward: as for `selection_scores`.
        gamma_reverse: as for `selection_scores`.
        partitions: as for `selection_scores`.
        threads: as for `selection_scores`.
        difficulty_kind: as for `selection_scores`.

    Raises:
        ArgumentError: as for `selection_scores`.
    """
    check_graph(graph)
    gammas = resolve_gammas(gamma_forward, gamma_reverse, graph.sq_distances, difficulty_kind)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions)
    x, t = compute_scores(graph, difficulty, gammas, threads, keep_forward=True)
    sender, amount = whole_graph.strongest_messages(graph, t, gammas[1], threads)
    return Selection(x, t, sender, amount, rounds=1, messages=0)


def compute_scores(
    graph: Graph,
    difficulty: ArrayLike,
    gammas: tuple[float, float],
    threads: int | None,
    keep_forward: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run both passes without validating the graph; takes 24 bytes a node beyond the arguments.

    Args:
        graph: valid, over N nodes.
        difficulty: as for `selection_scores`.
        gammas: of the forward and the reverse pass.
        threads: as for `selection_scores`.
        keep_forward: whether to return the forward scores, which takes 8 more bytes a node.

    Returns:
        (forward scores int64 [N], or [0] if they are not kept; selection scores int64 [N]).

    Raises:
        ArgumentError: as for `selection_scores`.
    """
    s = _to_fixed_difficulty(graph, difficulty)
    state = kernel.new_state(graph.n_nodes)
    value = state[0]
    whole_graph.forward_pass(graph, s, gammas[0], value, threads)
    del s
    x = value.copy() if keep_forward else np.empty(0, np.int64)
    whole_graph.reverse_pass(graph, state, gammas[1], threads)
    return x, value.copy()


def check_graph(graph: Graph) -> None:
    """Check that a graph is valid and small enough for one process.

    Raises:
        ArgumentError: it is not.
    """
    if not isinstance(graph, Graph):
        raise ArgumentError(
            f"graph: found {type(graph).__name__}; expected a d2prune.Graph, such as knn_graph returns"
        )
    graph.validate()
    if graph.n_nodes >= 2**31 - 1:
        raise ArgumentError(
            f"graph: {graph.n_nodes} nodes, expected fewer than 2**31 - 1; larger pools need d2prune.run"
        )


def _to_fixed_difficulty(graph: Graph, difficulty: ArrayLike) -> NDArray[np.int64]:
    s = to_fixed(difficulty)
    if len(s) != graph.n_nodes:
        raise ArgumentError(
            f"difficulty has {len(s)} scores, expected one per node of the graph ({graph.n_nodes})"
        )
    return s


def _select_partitioned(
    graph: Graph, difficulty: ArrayLike, gammas: tuple[float, float], partitions: ArrayLike
) -> Selection:
    """Run `select` on partitions, in this process."""
    owner, n_parts = dense_partitions(partitions, graph.n_nodes)
    parts = split(graph, owner, n_parts, _to_fixed_difficulty(graph, difficulty), gammas)
    history = run_rounds(parts)
    forward, t, sender, amount = (np.empty(graph.n_nodes, np.int64) for _ in range(4))
    for part in parts:
        own = part.own_positions
        forward[own], t[own] = part.forward_scores(), part.scores()
        sender[own], amount[own] = part.strongest_messages()
    return Selection(forward, t, sender, amount, len(history), sum(r.messages for r in history))
