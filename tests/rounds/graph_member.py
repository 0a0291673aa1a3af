"""Members of a group over a graph in memory, and groups that lose members at chosen calls."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.messages import MessageBatch
from d2prune.d2.partition import GraphPartition, node_id
from d2prune.knn.csr import Graph
from d2prune.rounds.group import Progress


@dataclass(frozen=True)
class GraphJob:
    graph: Graph
    difficulty: np.ndarray
    starts: tuple[int, ...]
    keep_checkpoints: bool


class GraphMember:
    """One partition of a graph in memory; its checkpoint, if any, is in a dict that outlives it."""

    checkpoints: ClassVar[dict] = {}

    def __init__(self, job, index):
        low, high = job.starts[index : index + 2]
        first, last = job.graph.indptr[[low, high]]
        starts = np.asarray(job.starts)
        owner = np.searchsorted(starts, job.graph.indices[first:last], side="right") - 1
        self.index, self.keep_checkpoints = index, job.keep_checkpoints
        self.partition = GraphPartition(
            index,
            np.arange(low, high),
            job.graph.indptr[low : high + 1] - first,
            node_id(owner, job.graph.indices[first:last] - starts[owner]),
            job.graph.sq_distances[first:last],
            to_fixed(job.difficulty[low:high]),
        )
        self.restored = index in self.checkpoints
        if self.restored:
            self.partition.restore(self.checkpoints[index])

    def ready(self):
        return self.restored

    def send_boundary(self, inbox, destinations):
        messages = self.partition.boundary_nodes().unpack()
        return {to: message for to, message in messages.items() if to in destinations}

    def start(self, inbox):
        return self.partition.start(MessageBatch.pack(inbox)).unpack()

    def step(self, inbox):
        return self.partition.step(MessageBatch.pack(inbox)).unpack()

    def resend(self, inbox, destinations):
        return {to: self.partition.resend(to) for to in self.partition.adjacent if to in destinations}

    def progress(self):
        return Progress(self.partition.n_nodes, self.partition.remaining, self.partition.n_sent)

    def checkpoint(self):
        if self.keep_checkpoints:
            self.checkpoints[self.index] = self.partition.state()

    def commit(self):
        return (
            self.partition.forward_scores(),
            self.partition.scores(),
            *self.partition.strongest_messages(),
        )


class LossyGroup:
    """A group that loses members before given calls of `exchange`, counted from 0."""

    def __init__(self, group, losses):
        self.group, self.losses, self.size, self.calls = group, losses, group.size, 0

    def build(self, members):
        return self.group.build(members)

    def call(self, method, members):
        return self.group.call(method, members)

    def exchange(self, method, members, inboxes, *arguments):
        for member in self.losses.get(self.calls, ()):
            self.group.lose(member)
        self.calls += 1
        return self.group.exchange(method, members, inboxes, *arguments)

    def close(self):
        self.group.close()
