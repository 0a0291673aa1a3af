"""The partitioned run in one process: cut a graph into partitions, exchange messages in rounds, put results together.

Reference for the distributed stage, which makes the same calls on actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import D2PruneError, UserError
from pipeline.graph.csr import Graph
from pipeline.selection.partition import GraphPartition, Introduction, Messages, node_id

_News = TypeVar("_News", Introduction, Messages)


@dataclass(frozen=True)
class Round:
    """What one round did: nodes `settled`, `messages` entries sent, nodes `remaining` after it."""

    settled: int
    messages: int
    remaining: int


def dense_partitions(partitions: ArrayLike, n_nodes: int) -> tuple[NDArray[np.int64], int]:
    """Any integer labels [N] as 0 .. P-1, and P.

    Raises:
        UserError: wrong length or dtype.
    """
    labels = np.asarray(partitions)
    if labels.shape != (n_nodes,) or labels.dtype.kind not in "iub":
        raise UserError(
            f"partitions: got {labels.dtype} {labels.shape}, expected {n_nodes} integers, one for each node"
        )
    distinct, dense = np.unique(labels, return_inverse=True)
    return dense.astype(np.int64), len(distinct)


def split(
    graph: Graph, owner: NDArray[np.int64], n_parts: int, difficulty: NDArray[np.int64], gammas: tuple[float, float]
) -> list[GraphPartition]:
    """Cut a graph into `n_parts` partitions by `owner` int64 [N] (0 .. n_parts-1); `difficulty` in fixed point."""
    nodes_by_part = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[nodes_by_part], np.arange(n_parts + 1))
    ids = np.empty(graph.n_nodes, np.int64)
    for p in range(n_parts):
        own = nodes_by_part[starts[p] : starts[p + 1]]
        ids[own] = node_id(p, np.arange(len(own)))
    parts = []
    for p in range(n_parts):
        own = nodes_by_part[starts[p] : starts[p + 1]]
        indptr, neighbors, distances = _take_rows(graph.indptr, graph.indices, graph.sq_distances, ids, own)
        parts.append(GraphPartition(p, own, indptr, neighbors, distances, difficulty[own], *gammas))
    return parts


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _take_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    sq_distances: NDArray[np.float32],
    ids: NDArray[np.int64],
    own: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The rows `own` of a CSR, neighbours translated by `ids`: (indptr, neighbours, distances)."""
    part_indptr = np.zeros(len(own) + 1, np.int64)
    for k in range(len(own)):
        part_indptr[k + 1] = part_indptr[k] + indptr[own[k] + 1] - indptr[own[k]]
    neighbors = np.empty(part_indptr[-1], np.int64)
    distances = np.empty(part_indptr[-1], np.float32)
    for k in range(len(own)):
        shift = part_indptr[k] - indptr[own[k]]
        for e in range(indptr[own[k]], indptr[own[k] + 1]):
            neighbors[e + shift] = ids[indices[e]]
            distances[e + shift] = sq_distances[e]
    return part_indptr, neighbors, distances


def run_rounds(parts: Sequence[GraphPartition]) -> list[Round]:
    """Settle partitions 0 .. P-1 (parts[p] is partition p) to the end; returns what each round did.

    Raises:
        UserError: overflow or asymmetry.
        D2PruneError: a round without progress (a defect, or rows that are not symmetric).
    """
    history = []
    remaining = sum(part.remaining for part in parts)
    introductions = _deliver([part.introduce() for part in parts])
    outbox = [part.start(inbox) for part, inbox in zip(parts, introductions, strict=True)]
    while True:
        before, remaining = remaining, sum(part.remaining for part in parts)
        sent = sum(len(news.slots) for out in outbox for news in out.values())
        history.append(Round(before - remaining, sent, remaining))
        if sent == 0 and remaining == 0:
            return history
        if sent == 0:
            raise D2PruneError(f"{remaining} nodes are left and no partition has news: the graph is not symmetric")
        outbox = [part.step(inbox) for part, inbox in zip(parts, _deliver(outbox), strict=True)]


def _deliver(outbox: Sequence[Mapping[int, _News]]) -> list[dict[int, _News]]:
    """From one mapping by destination for each source to one mapping by source for each destination."""
    inbox: list[dict[int, _News]] = [{} for _ in outbox]
    for source, out in enumerate(outbox):
        for dest, news in out.items():
            inbox[dest][source] = news
    return inbox
