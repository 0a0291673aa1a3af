"""Both passes over a whole graph in memory, by one or several threads; the result is the same for any number.

Threads own contiguous ranges of nodes and share the node values. A pass finalises what it can; the
next starts from what is left; the last, by one thread, leaves nothing.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from d2prune.d2 import kernel, order
from d2prune.d2.fixed_point import FRACTION_BITS, LIMIT
from d2prune.errors import D2PruneError, UserError
from d2prune.knn.csr import Graph

# Starting threads costs more than it saves below this.
_MIN_NODES_PER_THREAD = 50_000
# Threads stop taking passes when one settles less than this share of what is left, and one thread
# does the rest. It bounds the work on graphs where every node waits on the other thread (a chain
# laid across both).
_MIN_SHARE_PER_PASS = 0.1
# Nor when less than this share of all nodes is left: a pass reads every node's record, whatever it has to do.
_MIN_SHARE_LEFT = 1 / 64

# Node records of a block: 256 KiB, within a core's second-level cache.
_BLOCK = 1 << 14
_SAMPLED_EDGES = 10_000

_IN_ORDER = np.empty(0, np.int64)
_T = TypeVar("_T")


def overflow_error(position: int) -> UserError:
    """For a node value beyond +-LIMIT."""
    limit = LIMIT >> FRACTION_BITS
    return UserError(
        f"the value of node {position} leaves the range of +-{limit}: scale the difficulty scores down"
    )


def _ranges(n: int, threads: int | None) -> list[tuple[int, int]]:
    """Split 0..n into one contiguous range per thread."""
    if threads is None:
        threads = min(len(os.sched_getaffinity(0)), max(1, n // _MIN_NODES_PER_THREAD))
    if threads < 1:
        raise UserError(f"threads is {threads}, expected at least 1")
    return list(itertools.pairwise(n * p // threads for p in range(threads + 1)))


def _in_threads(work: Callable[[int, int], _T], ranges: list[tuple[int, int]]) -> list[_T]:
    """work(lo, hi) for each range, each in a thread of its own."""
    if len(ranges) == 1:
        return [work(*ranges[0])]
    with ThreadPoolExecutor(len(ranges)) as pool:
        return list(pool.map(lambda bounds: work(*bounds), ranges))


def _check_overflow(nodes: list[int]) -> None:
    overflows = [node for node in nodes if node != kernel.NO_OVERFLOW]
    if overflows:
        raise overflow_error(min(overflows))


def forward_scores(
    graph: Graph, s: NDArray[np.int64], gamma_forward: float, x: NDArray[np.int64], threads: int | None = None
) -> None:
    """Forward pass: write x, int64 [N] in any stride, from difficulty `s`, int64 [N], both in fixed point.

    Raises:
        UserError: overflow.
    """

    def work(lo: int, hi: int) -> int:
        return int(
            kernel.forward(graph.indptr, graph.indices, graph.sq_distances, gamma_forward, s, x, lo, hi)
        )

    _check_overflow(_in_threads(work, _ranges(graph.n_nodes, threads)))


def settle(
    graph: Graph,
    state: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]],
    gamma_reverse: float,
    threads: int | None = None,
) -> None:
    """Reverse pass: `state` (`kernel.new_state`, its values the forward scores) ends with t as its values.

    Raises:
        UserError: overflow.
    """
    n = graph.n_nodes
    value, head, link = state
    block = _block_size(graph)

    def work(lo: int, hi: int) -> tuple[int, int]:
        own = head[lo:hi]
        own[own != order.DONE] = order.NOBODY
        queue, ends = np.empty(min(block, hi - lo), np.int32), np.empty(order.N_BUCKETS + 1, np.int64)
        total = 0
        for first in range(lo, hi, block):
            queued = order.sort_into_buckets(value, head, first, min(first + block, hi), queue, ends)
            settled, overflow = kernel.settle(
                graph.indptr, graph.indices, graph.sq_distances, gamma_reverse, _IN_ORDER,
                value, head, link, lo, hi, queue[:queued], ends, order.NOBODY, len(ranges) > 1,
            )  # fmt: skip
            total += int(settled)
            if overflow != kernel.NO_OVERFLOW:
                return total, int(overflow)
        return total, kernel.NO_OVERFLOW

    left = int(np.count_nonzero(value > 0))
    ranges = _ranges(n, threads)
    while left:
        results = _in_threads(work, ranges)
        _check_overflow([overflow for _, overflow in results])
        settled = sum(count for count, _ in results)
        if len(ranges) == 1 and settled < left:
            raise D2PruneError(f"{left - settled} nodes could not be finalised: the graph is not symmetric")
        if settled < _MIN_SHARE_PER_PASS * left or left - settled < _MIN_SHARE_LEFT * n:
            ranges = [(0, n)]
        left -= settled


def _block_size(graph: Graph) -> int:
    """How many nodes to sort by value at a time.

    Where most neighbours lie near in memory, blocks that fit the cache: twice as fast at 2 million
    nodes, though the order between blocks is not by value. Else all nodes at once: fewest looks.
    """
    edges = np.linspace(0, max(0, graph.n_edges - 1), min(_SAMPLED_EDGES, graph.n_edges)).astype(np.int64)
    rows = np.searchsorted(graph.indptr, edges, side="right") - 1
    near = np.abs(graph.indices[edges] - rows) < _BLOCK // 4
    return _BLOCK if len(edges) and near.mean() > 0.75 else max(1, graph.n_nodes)


def strongest_messages(
    graph: Graph, t: NDArray[np.int64], gamma_reverse: float, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(node whose message was the largest or -1, that message), int64 [N] each, from t int64 [N]."""
    sender, amount = np.empty(graph.n_nodes, np.int64), np.empty(graph.n_nodes, np.int64)

    def work(lo: int, hi: int) -> None:
        kernel.strongest_message(
            graph.indptr,
            graph.indices,
            graph.sq_distances,
            gamma_reverse,
            _IN_ORDER,
            t,
            sender,
            amount,
            lo,
            hi,
        )

    _in_threads(work, _ranges(graph.n_nodes, threads))
    return sender, amount
