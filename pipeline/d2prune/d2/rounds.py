"""The partitioned run in one process: cut a graph into partitions, exchange messages in rounds, put results together.

Reference for the distributed stage, which makes the same calls on actors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.compiled.decorator import kernel
from d2prune.d2.partition import NO_MAIL, GraphPartition, Mail, node_id
from d2prune.errors import D2PruneError, UserError
from d2prune.knn.csr import Graph


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
    graph: Graph,
    owner: NDArray[np.int64],
    n_parts: int,
    difficulty: NDArray[np.int64],
    gammas: tuple[float, float],
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


@kernel
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
    sent = [part.start(mail) for part, mail in zip(parts, introductions, strict=True)]
    while True:
        before, remaining = remaining, sum(part.remaining for part in parts)
        messages = sum(len(mail.keys) for mail in sent)
        history.append(Round(before - remaining, messages, remaining))
        if messages == 0 and remaining == 0:
            return history
        if messages == 0:
            raise D2PruneError(
                f"{remaining} nodes are left and no partition has news: the graph is not symmetric"
            )
        sent = [part.step(mail) for part, mail in zip(parts, _deliver(sent), strict=True)]


def _deliver(sent: Sequence[Mail]) -> list[Mail]:
    """From one mail by destination for each source to one mail by source for each destination."""
    inboxes = [NO_MAIL] * len(sent)
    # Of a long chain most partitions are silent in most rounds: those must cost nothing.
    senders = [source for source, mail in enumerate(sent) if len(mail.keys)]
    if not senders:
        return inboxes
    mails = [sent[source] for source in senders]
    source_L = np.repeat(senders, [len(mail.partitions) for mail in mails])
    destination_L = np.concatenate([mail.partitions for mail in mails])
    length_L = np.concatenate([np.diff(mail.starts) for mail in mails])
    first_L = np.cumsum(length_L) - length_L
    order_L = np.argsort(destination_L, kind="stable")
    order_L = order_L[length_L[order_L] > 0]
    source_L, destination_L, length_L, first_L = (
        column[order_L] for column in (source_L, destination_L, length_L, first_L)
    )
    starts = np.append(0, np.cumsum(length_L))
    place_M = np.repeat(first_L - starts[:-1], length_L) + np.arange(starts[-1])
    keys_M, values_M = (np.concatenate([mail[column] for mail in mails])[place_M] for column in (2, 3))
    destinations, bounds = np.unique(destination_L, return_index=True)
    for destination, lo, hi in zip(
        destinations.tolist(), bounds, np.append(bounds[1:], len(order_L)), strict=True
    ):
        entries = slice(starts[lo], starts[hi])
        inboxes[destination] = Mail(
            source_L[lo:hi], starts[lo : hi + 1] - starts[lo], keys_M[entries], values_M[entries]
        )
    return inboxes
