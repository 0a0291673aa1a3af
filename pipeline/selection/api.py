"""Selection scores of a whole pool, in memory: numpy in, numpy out.

`selection_scores` is the plain function; `select` returns everything there is to know about the same run. Both give
the same bits for any number of threads and any partitioning (docs/algorithm.md).
"""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import UserError
from pipeline.graph.csr import Graph
from pipeline.selection import kernel
from pipeline.selection.fixed_point import FRACTION_BITS, LIMIT, check_gamma, to_fixed
from pipeline.selection.rounds import dense_partitions, run_rounds, split

# Starting threads costs more than it saves below this.
_MIN_NODES_PER_THREAD = 50_000
# Threads stop taking passes when one finalises less than this share of what is left; one thread does the rest. It
# bounds the work on graphs where every node waits on the other thread (a chain laid across both).
_MIN_SHARE_PER_PASS = 0.1

_IN_ORDER = np.empty(0, np.int64)


@dataclass(frozen=True)
class Selection:
    """What one run of D2 says about each of N nodes. Scores are int64 in units of 2**-40.

    Attributes:
        forward_score: int64 [N], x after the forward pass (paper equation 1).
        selection_score: int64 [N], t: the value at the moment of the pick. A coreset of m is the m highest, ties to
            the lower index, for every m.
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
        partitions: int [N], the partition of each node: run the partitioned kernel. The result is the same, bit for
            bit.
        threads: for the whole-graph kernel; default: the CPUs this process may use. The result is the same.

    Returns:
        int64 [N] in units of 2**-40.

    Raises:
        UserError: an invalid graph, score or gamma, or values beyond 2**22.
    """
    graph.validate()
    gammas = check_gamma("gamma_forward", gamma_forward), check_gamma("gamma_reverse", gamma_reverse)
    s = _checked_difficulty(graph, difficulty)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions).selection_score
    x = forward_scores(graph, s, gammas[0], threads)
    return settle_threads(graph, x, gammas[1], threads, out=s)


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
    graph.validate()
    gammas = check_gamma("gamma_forward", gamma_forward), check_gamma("gamma_reverse", gamma_reverse)
    s = _checked_difficulty(graph, difficulty)
    if partitions is not None:
        return _select_partitioned(graph, difficulty, gammas, partitions)
    x = forward_scores(graph, s, gammas[0], threads)
    t = settle_threads(graph, x.copy(), gammas[1], threads, out=s)
    sender, amount = np.empty(graph.n_nodes, np.int64), np.empty(graph.n_nodes, np.int64)

    def work(bounds: tuple[int, int]) -> None:
        kernel.strongest_message(
            graph.indptr, graph.indices, graph.sq_distances, gammas[1], _IN_ORDER, t, sender, amount, *bounds
        )

    ranges = _ranges(graph.n_nodes, threads)
    with ThreadPoolExecutor(len(ranges)) as pool:
        list(pool.map(work, ranges))
    return Selection(x, t, sender, amount, rounds=1, messages=0)


def _select_partitioned(
    graph: Graph, difficulty: ArrayLike, gammas: tuple[float, float], partitions: ArrayLike
) -> Selection:
    """`select` through GraphPartition, in this process."""
    owner, n_parts = dense_partitions(partitions, graph.n_nodes)
    parts = split(graph, owner, n_parts, np.asarray(difficulty, np.float64), gammas)
    history = run_rounds(parts)
    forward, t, sender, amount = (np.empty(graph.n_nodes, np.int64) for _ in range(4))
    for part in parts:
        own = part.own_positions
        forward[own], t[own] = part.forward_scores(), part.scores()
        sender[own], amount[own] = part.strongest_messages()
    return Selection(forward, t, sender, amount, len(history), sum(r.messages for r in history))


def _checked_difficulty(graph: Graph, difficulty: ArrayLike) -> NDArray[np.int64]:
    s = to_fixed(difficulty)
    if len(s) != graph.n_nodes:
        raise UserError(f"difficulty has {len(s)} scores, expected one for each of the graph's {graph.n_nodes} nodes")
    if graph.n_nodes >= 2**31 - 1:
        raise UserError(f"{graph.n_nodes} nodes in one graph, expected fewer than 2**31 - 1: use partitions")
    return s


def overflow_error(node: int) -> UserError:
    """For a node value beyond +-LIMIT."""
    limit = LIMIT >> FRACTION_BITS
    return UserError(f"the value of node {node} leaves the range of +-{limit}: scale the difficulty scores down")


def _ranges(n: int, threads: int | None) -> list[tuple[int, int]]:
    """Split 0..n into one contiguous range per thread."""
    if threads is None:
        threads = min(len(os.sched_getaffinity(0)), max(1, n // _MIN_NODES_PER_THREAD))
    if threads < 1:
        raise UserError(f"threads is {threads}, expected at least 1")
    bounds = [n * p // threads for p in range(threads + 1)]
    return list(itertools.pairwise(bounds))


def forward_scores(
    graph: Graph, s: NDArray[np.int64], gamma_forward: float, threads: int | None = None
) -> NDArray[np.int64]:
    """Forward pass over the whole graph: x, int64 [N] (see kernel.forward)."""
    x = np.empty(graph.n_nodes, np.int64)

    def work(bounds: tuple[int, int]) -> int:
        lo, hi = bounds
        return int(kernel.forward(graph.indptr, graph.indices, graph.sq_distances, gamma_forward, s, x, lo, hi))

    ranges = _ranges(graph.n_nodes, threads)
    with ThreadPoolExecutor(len(ranges)) as pool:
        overflows = [node for node in pool.map(work, ranges) if node != kernel.NO_OVERFLOW]
    if overflows:
        raise overflow_error(min(overflows))
    return x


def settle_threads(
    graph: Graph,
    x: NDArray[np.int64],
    gamma_reverse: float,
    threads: int | None = None,
    out: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Reverse pass over the whole graph: t, int64 [N]. `x` is used up; `out` may be any int64 [N] to write t into.

    Threads own ranges of nodes and share `x` (see kernel.settle): a pass finalises what it can, the next starts from
    what is left, and the last, by one thread, cannot leave anything.
    """
    n = graph.n_nodes
    t = np.empty(n, np.int64) if out is None else out
    head = np.full(n, kernel.NOBODY, np.int32)
    link = np.empty(n, np.int32)

    def work(bounds: tuple[int, int]) -> tuple[int, int]:
        lo, hi = bounds
        head[lo:hi] = kernel.NOBODY
        finalised, overflow = kernel.settle(
            graph.indptr, graph.indices, graph.sq_distances, gamma_reverse,
            _IN_ORDER, x, t, head, link, lo, hi, len(ranges) > 1, True, kernel.NOBODY,
        )  # fmt: skip
        return int(finalised), int(overflow)

    left = n
    ranges = _ranges(n, threads)
    while left:
        with ThreadPoolExecutor(len(ranges)) as pool:
            results = list(pool.map(work, ranges))
        overflows = [node for _, node in results if node != kernel.NO_OVERFLOW]
        if overflows:
            raise overflow_error(min(overflows))
        finalised = sum(count for count, _ in results)
        if len(ranges) == 1 and finalised < left:
            raise AssertionError(f"{left - finalised} nodes of a valid graph could not be finalised")
        if finalised < _MIN_SHARE_PER_PASS * left:
            ranges = [(0, n)]
        left -= finalised
    return t
