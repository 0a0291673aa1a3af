"""Both passes over a graph in memory, on any number of threads; the result is the same.

Each thread owns a contiguous range of nodes, and all threads share the node values. The reverse pass
runs in sweeps: a sweep finalises what it can, and the next one starts from what is left. The last
sweep runs on one thread and leaves nothing.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from d2prune.arguments import as_whole
from d2prune.d2 import bucket_queue, kernel
from d2prune.d2.fixed_point import FRACTION_BITS, LIMIT
from d2prune.d2.waiting_lists import FINAL, NO_NODE
from d2prune.errors import ArgumentError, D2PruneError
from d2prune.knn.csr import Graph

# Starting a thread costs more than it saves below this.
_MIN_NODES_PER_THREAD = 50_000
# One thread does the rest once a sweep finalises less than this share of what was left. This bounds
# the work on graphs where every node waits for the other thread (a chain that alternates between
# both ranges).
_MIN_SHARE_PER_SWEEP = 0.1
# It also does the rest once less than this share of all nodes is left: a sweep reads every node's
# record, however few are left.
_MIN_SHARE_LEFT = 1 / 64

# Nodes per block: their records take 256 KiB, which fits a core's second-level cache.
_BLOCK = 1 << 14
_SAMPLED_EDGES = 10_000

_INDEX_ORDER = np.empty(0, np.int64)
_T = TypeVar("_T")


def overflow_error(position: int) -> ArgumentError:
    """The error for a node value beyond +-LIMIT."""
    limit = LIMIT >> FRACTION_BITS
    return ArgumentError(f"node {position}: its value exceeds +-{limit}; scale the difficulty scores down")


def _split_range(n: int, threads: int | None) -> list[tuple[int, int]]:
    """Split 0..n into one contiguous range per thread."""
    if threads is None:
        threads = min(len(os.sched_getaffinity(0)), max(1, n // _MIN_NODES_PER_THREAD))
    threads = as_whole(threads, "threads", 1)
    return list(itertools.pairwise(n * p // threads for p in range(threads + 1)))


def _run_in_threads(work: Callable[[int, int], _T], ranges: list[tuple[int, int]]) -> list[_T]:
    """Return work(lo, hi) of each range, computed on one thread per range."""
    if len(ranges) == 1:
        return [work(*ranges[0])]
    with ThreadPoolExecutor(len(ranges)) as pool:
        return list(pool.map(lambda bounds: work(*bounds), ranges))


def _check_overflow(nodes: list[int]) -> None:
    overflows = [node for node in nodes if node != kernel.NO_OVERFLOW]
    if overflows:
        raise overflow_error(min(overflows))


def forward_pass(
    graph: Graph, s: NDArray[np.int64], gamma_forward: float, x: NDArray[np.int64], threads: int | None = None
) -> None:
    """Compute the forward scores.

    Args:
        graph: over N nodes.
        s: int64 [N], difficulty in fixed point.
        gamma_forward: decay of the forward messages.
        x: int64 [N] with any stride, written.
        threads: as for `api.selection_scores`.

    Raises:
        ArgumentError: overflow.
    """

    def work(lo: int, hi: int) -> int:
        return int(
            kernel.forward_pass(graph.indptr, graph.indices, graph.sq_distances, gamma_forward, s, x, lo, hi)
        )

    _check_overflow(_run_in_threads(work, _split_range(graph.n_nodes, threads)))


def reverse_pass(
    graph: Graph,
    state: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]],
    gamma_reverse: float,
    threads: int | None = None,
) -> None:
    """Finalise every node.

    Args:
        graph: over N nodes.
        state: from `kernel.new_state`, with the forward scores as values; they become t.
        gamma_reverse: decay of the reverse messages.
        threads: as for `api.selection_scores`.

    Raises:
        ArgumentError: overflow.
        D2PruneError: the graph is not symmetric.
    """
    n = graph.n_nodes
    value, head, link = state
    block = _block_size(graph)

    def sweep(lo: int, hi: int) -> tuple[int, int]:
        own = head[lo:hi]
        own[own != FINAL] = NO_NODE
        queue = np.empty(min(block, hi - lo), np.int32)
        ends = np.empty(bucket_queue.N_BUCKETS + 1, np.int64)
        total = 0
        for first in range(lo, hi, block):
            queued = bucket_queue.sort_into_buckets(value, head, first, min(first + block, hi), queue, ends)
            finalised, overflow = kernel.finalise_nodes(
                graph.indptr, graph.indices, graph.sq_distances, gamma_reverse, _INDEX_ORDER,
                value, head, link, lo, hi, queue[:queued], ends, NO_NODE, len(ranges) > 1,
            )  # fmt: skip
            total += int(finalised)
            if overflow != kernel.NO_OVERFLOW:
                return total, int(overflow)
        return total, kernel.NO_OVERFLOW

    left = int(np.count_nonzero(value > 0))
    ranges = _split_range(n, threads)
    while left:
        results = _run_in_threads(sweep, ranges)
        _check_overflow([overflow for _, overflow in results])
        finalised = sum(count for count, _ in results)
        if len(ranges) == 1 and finalised < left:
            raise D2PruneError(f"{left - finalised} nodes could not be finalised: the graph is not symmetric")
        if finalised < _MIN_SHARE_PER_SWEEP * left or left - finalised < _MIN_SHARE_LEFT * n:
            ranges = [(0, n)]
        left -= finalised


def _block_size(graph: Graph) -> int:
    """Return how many nodes to sort by value at a time.

    Where most neighbours are close in memory, this is a block that fits the cache: twice as fast at
    2 million nodes, although the order across blocks is not by value. Otherwise it is all nodes,
    which needs the fewest visits.
    """
    edges = np.linspace(0, max(0, graph.n_edges - 1), min(_SAMPLED_EDGES, graph.n_edges)).astype(np.int64)
    rows = np.searchsorted(graph.indptr, edges, side="right") - 1
    near = np.abs(graph.indices[edges] - rows) < _BLOCK // 4
    return _BLOCK if len(edges) and near.mean() > 0.75 else max(1, graph.n_nodes)


def strongest_messages(
    graph: Graph, t: NDArray[np.int64], gamma_reverse: float, threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the largest message that each node received.

    Args:
        graph: over N nodes.
        t: int64 [N], selection scores.
        gamma_reverse: decay of the reverse messages.
        threads: as for `api.selection_scores`.

    Returns:
        (its sender or -1, its size), int64 [N] each.
    """
    sender, amount = np.empty(graph.n_nodes, np.int64), np.empty(graph.n_nodes, np.int64)

    def work(lo: int, hi: int) -> None:
        kernel.strongest_messages(
            graph.indptr, graph.indices, graph.sq_distances, gamma_reverse, _INDEX_ORDER,
            t, sender, amount, lo, hi,
        )  # fmt: skip

    _run_in_threads(work, _split_range(graph.n_nodes, threads))
    return sender, amount
