"""The partitioned algorithm in one process: messages are exchanged until all nodes are final.

Reference for the distributed ranking, which makes the same calls on worker processes. Suffixes in
`route_messages`: L messages, M entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_array
from d2prune.compiled.decorator import kernel
from d2prune.d2.messages import EMPTY_BATCH, MessageBatch
from d2prune.d2.partition import GraphPartition, node_id
from d2prune.errors import ArgumentError, D2PruneError
from d2prune.knn.csr import Graph


@dataclass(frozen=True)
class Round:
    """Statistics of one round.

    Attributes:
        finalised: nodes that became final or fell to zero or below.
        messages: entries sent.
        remaining: nodes left afterwards.
    """

    finalised: int
    messages: int
    remaining: int


def dense_partitions(partitions: ArrayLike, n_nodes: int) -> tuple[NDArray[np.int64], int]:
    """Renumber integer labels [N] of any values to 0 .. P-1; returns them and P.

    Raises:
        ArgumentError: wrong length or dtype.
    """
    labels = as_array(partitions, "partitions")
    if labels.shape != (n_nodes,) or labels.dtype.kind not in "iub":
        raise ArgumentError(
            f"partitions: got {labels.dtype} {labels.shape}, expected {n_nodes} integers, one per node"
        )
    distinct, dense = np.unique(labels, return_inverse=True)
    return dense.astype(np.int64), len(distinct)


def split(
    graph: Graph,
    owner: NDArray[np.int64],
    n_parts: int,
    difficulty: NDArray[np.int64],
    gammas: tuple[float | None, float],
) -> list[GraphPartition]:
    """Split a graph into partitions.

    Args:
        graph: over N nodes.
        owner: int64 [N], the partition of each node, from 0 to n_parts - 1.
        n_parts: number of partitions.
        difficulty: int64 [N], fixed point.
        gammas: of the forward and the reverse pass; None: no forward pass.
    """
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


@kernel
def _take_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    sq_distances: NDArray[np.float32],
    ids: NDArray[np.int64],
    own: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Copy the rows `own`, neighbours translated by `ids`: (indptr, neighbours, distances)."""
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
    """Run partitions 0 .. P-1 (parts[p] is partition p) until every node is final.

    Returns:
        Statistics of each round.

    Raises:
        ArgumentError: overflow or asymmetry.
        D2PruneError: a round made no progress: the graph is not symmetric, or there is a defect.
    """
    history = []
    remaining = sum(part.remaining for part in parts)
    boundaries = route_messages([part.boundary_nodes() for part in parts])
    sent = [part.start(batch) for part, batch in zip(parts, boundaries, strict=True)]
    while True:
        before, remaining = remaining, sum(part.remaining for part in parts)
        messages = sum(len(batch.keys) for batch in sent)
        history.append(Round(before - remaining, messages, remaining))
        if messages == 0 and remaining == 0:
            return history
        if messages == 0:
            raise D2PruneError(
                f"{remaining} nodes are not final, but no partition has a message to send: "
                "the graph is not symmetric"
            )
        sent = [part.step(batch) for part, batch in zip(parts, route_messages(sent), strict=True)]


def route_messages(sent: Sequence[MessageBatch]) -> list[MessageBatch]:
    """Turn one batch per source, by destination, into one batch per destination, by source."""
    inboxes = [EMPTY_BATCH] * len(sent)
    # On a long chain, most partitions send nothing in most rounds: those must cost nothing.
    senders = [source for source, batch in enumerate(sent) if len(batch.keys)]
    if not senders:
        return inboxes
    batches = [sent[source] for source in senders]
    source_L = np.repeat(senders, [len(batch.partitions) for batch in batches])
    destination_L = np.concatenate([batch.partitions for batch in batches])
    length_L = np.concatenate([np.diff(batch.starts) for batch in batches])
    first_L = np.cumsum(length_L) - length_L
    order_L = np.argsort(destination_L, kind="stable")
    order_L = order_L[length_L[order_L] > 0]
    source_L, destination_L, length_L, first_L = (
        column[order_L] for column in (source_L, destination_L, length_L, first_L)
    )
    starts = np.append(0, np.cumsum(length_L))
    entry_M = np.repeat(first_L - starts[:-1], length_L) + np.arange(starts[-1])
    keys_M, values_M = (np.concatenate([batch[column] for batch in batches])[entry_M] for column in (2, 3))
    destinations, bounds = np.unique(destination_L, return_index=True)
    for destination, lo, hi in zip(
        destinations.tolist(), bounds, np.append(bounds[1:], len(order_L)), strict=True
    ):
        entries = slice(starts[lo], starts[hi])
        inboxes[destination] = MessageBatch(
            source_L[lo:hi], starts[lo : hi + 1] - starts[lo], keys_M[entries], values_M[entries]
        )
    return inboxes
