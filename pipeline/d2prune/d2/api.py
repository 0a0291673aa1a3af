"""Selection scores of a whole pool, in memory: numpy in, numpy out.

`selection_scores` is the plain function; `select` returns everything there is to know about the
same run. Both give the same bits for any number of threads and any partitioning (docs/algorithm.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2 import kernel, whole_graph
from d2prune.d2.fixed_point import check_gamma, to_fixed
from d2prune.d2.rounds import dense_partitions, run_rounds, split
from d2prune.errors import UserError
from d2prune.knn.csr import Graph


@dataclass(frozen=True)
class Selection:
    """What one run of D2 says about each of N nodes. Scores are int64 in units of 2**-40.

    Attributes:
        forward_score: int64 [N], x after the forward pass (paper equation 1).
        selection_score: int64 [N], t: the value at the moment of the pick. A coreset of m is the m
            highest, ties to the lower index, for every m.
        suppressed_by: int64 [N], the node whose pick lowered this one most (ties: lower index); -1: none.
        suppression: int64 [N], by how much.
        rounds: exchange rounds of the reverse pass between partitions; 1 for the whole graph.
        messages: entries exchanged between partitions (12 bytes each); 0 for the whole graph.
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
    gamma_forward: float = 1.0,
    gamma_reverse: float = 1.0,
    partitions: ArrayLike | None = None,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """The selection score t of every node: D2 Pruning carried to the end of the pool.

    Args:
        graph: symmetric kNN graph over N nodes; checked.
        difficulty: [N] numbers >= 0, higher = more wanted.
        gamma_forward: decay of the forward messages exp(-gamma * d^2), >= 0.
        gamma_reverse: decay of the reverse messages, >= 0.
        partitions: int [N], the partition of each node: run the partitioned kernel. The result is
            the same, bit for bit.
        threads: for the whole-graph kernel; default: the CPUs this process may use. The result is the same.

    Returns:
        int64 [N] in units of 2**-40.

    Raises:
        UserError: an invalid graph, score or gamma, or values beyond 2**22.
    """
    gammas = _checked(graph, gamma_forward, gamma_reverse)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions).selection_score
    return compute_scores(graph, difficulty, gammas, threads)[1]


def select(
    graph: Graph,
    difficulty: ArrayLike,
    gamma_forward: float = 1.0,
    gamma_reverse: float = 1.0,
    partitions: ArrayLike | None = None,
    threads: int | None = None,
) -> Selection:
    """Like `selection_scores`, with all that is known about the run.

    Args:
        graph: see `selection_scores`.
        difficulty: see there.
        gamma_forward: see there.
        gamma_reverse: see there.
        partitions: see there.
        threads: see there.

    Raises:
        UserError: as `selection_scores`.
    """
    gammas = _checked(graph, gamma_forward, gamma_reverse)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions)
    x, t = compute_scores(graph, difficulty, gammas, threads, keep_forward=True)
    sender, amount = whole_graph.strongest_messages(graph, t, gammas[1], threads)
    return Selection(x, t, sender, amount, rounds=1, messages=0)


def _checked(graph: Graph, gamma_forward: float, gamma_reverse: float) -> tuple[float, float]:
    """Both gammas, after checking them and the graph."""
    graph.validate()
    if graph.n_nodes >= 2**31 - 1:
        raise UserError(
            f"{graph.n_nodes} nodes in one graph, expected fewer than 2**31 - 1: run on partitions"
        )
    return check_gamma("gamma_forward", gamma_forward), check_gamma("gamma_reverse", gamma_reverse)


def compute_scores(
    graph: Graph,
    difficulty: ArrayLike,
    gammas: tuple[float, float],
    threads: int | None,
    keep_forward: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(forward scores or an empty array, selection scores) of a valid graph; 24 bytes a node beyond the arguments."""
    s = _fixed_difficulty(graph, difficulty)
    state = kernel.new_state(graph.n_nodes)
    value = state[0]
    whole_graph.forward_scores(graph, s, gammas[0], value, threads)
    del s
    x = value.copy() if keep_forward else np.empty(0, np.int64)
    whole_graph.settle(graph, state, gammas[1], threads)
    return x, value.copy()


def _fixed_difficulty(graph: Graph, difficulty: ArrayLike) -> NDArray[np.int64]:
    s = to_fixed(difficulty)
    if len(s) != graph.n_nodes:
        raise UserError(
            f"difficulty has {len(s)} scores, expected one for each of the graph's {graph.n_nodes} nodes"
        )
    return s


def _select_partitioned(
    graph: Graph, difficulty: ArrayLike, gammas: tuple[float, float], partitions: ArrayLike
) -> Selection:
    """`select` through GraphPartition, in this process."""
    owner, n_parts = dense_partitions(partitions, graph.n_nodes)
    parts = split(graph, owner, n_parts, _fixed_difficulty(graph, difficulty), gammas)
    history = run_rounds(parts)
    forward, t, sender, amount = (np.empty(graph.n_nodes, np.int64) for _ in range(4))
    for part in parts:
        own = part.own_positions
        forward[own], t[own] = part.forward_scores(), part.scores()
        sender[own], amount[own] = part.strongest_messages()
    return Selection(forward, t, sender, amount, len(history), sum(r.messages for r in history))
