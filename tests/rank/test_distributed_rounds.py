"""Ranking on a group of members: the same bits whatever their number and whoever is lost in whichever round."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from d2prune.d2.api import select
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.partition import GraphPartition, Mail, node_id
from d2prune.errors import D2PruneError
from d2prune.execution import InProcess, OnRay, Resources
from d2prune.knn.csr import Graph
from d2prune.rank.settle import Progress, settle
from tests.oracles import graph_from_edges, naive_d2, neighbours
from tests.graphs import problems

N = 300


@dataclass(frozen=True)
class Job:
    graph: Graph
    difficulty: np.ndarray
    starts: tuple[int, ...]
    keep_state: bool


class PartitionMember:
    """A member over arrays in memory; its checkpoint, if any, is in a dict that outlives it."""

    saved: ClassVar[dict] = {}

    def __init__(self, job, index):
        low, high = job.starts[index : index + 2]
        first, last = job.graph.indptr[[low, high]]
        starts = np.asarray(job.starts)
        owner = np.searchsorted(starts, job.graph.indices[first:last], side="right") - 1
        self.index, self.keep_state = index, job.keep_state
        self.partition = GraphPartition(
            index,
            np.arange(low, high),
            job.graph.indptr[low : high + 1] - first,
            node_id(owner, job.graph.indices[first:last] - starts[owner]),
            job.graph.sq_distances[first:last],
            to_fixed(job.difficulty[low:high]),
        )
        self.restored = index in self.saved
        if self.restored:
            self.partition.restore(self.saved[index])

    def ready(self):
        return self.restored

    def introduce(self, inbox, destinations):
        return {
            to: message for to, message in self.partition.introduce().letters().items() if to in destinations
        }

    def start(self, inbox):
        return self.partition.start(Mail.of(inbox)).letters()

    def step(self, inbox):
        return self.partition.step(Mail.of(inbox)).letters()

    def resend(self, inbox, destinations):
        return {to: self.partition.resend(to) for to in self.partition.neighbours if to in destinations}

    def progress(self):
        return Progress(self.partition.n_nodes, self.partition.remaining, self.partition.n_sent)

    def checkpoint(self):
        if self.keep_state:
            self.saved[self.index] = self.partition.state()

    def finish(self):
        return (
            self.partition.forward_scores(),
            self.partition.scores(),
            *self.partition.strongest_messages(),
        )


class Losing:
    """A group that loses members before given calls of `exchange`."""

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


def job(size, keep_state=False, seed=0):
    rng = np.random.default_rng(seed)
    pairs = {tuple(sorted(pair)) for pair in rng.integers(0, N, (900, 2)).tolist() if pair[0] != pair[1]}
    graph = graph_from_edges(N, {pair: float(rng.integers(0, 4)) / 2 for pair in sorted(pairs)})
    starts = tuple(np.linspace(0, N, size + 1).astype(int).tolist())
    # Few distinct values: ties between partitions in every round.
    return Job(graph, rng.integers(0, 8, N) / 4, starts, keep_state)


def whole(job):
    found = select(job.graph, job.difficulty)
    return found.forward_score, found.selection_score, found.suppressed_by, found.suppression


def assert_equal(results, expected):
    for column, values in zip(zip(*results, strict=True), expected, strict=True):
        np.testing.assert_array_equal(np.concatenate(column), values)


@pytest.fixture(autouse=True)
def _no_checkpoints_of_others():
    PartitionMember.saved.clear()


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_any_number_of_members_gives_the_bits_of_one_kernel(size):
    wanted = job(size)
    assert_equal(
        settle(InProcess().group(partial(PartitionMember, wanted), size, Resources()), "finish"),
        whole(wanted),
    )


@pytest.mark.parametrize("keep_state", [False, True], ids=["from nothing", "from a checkpoint"])
@pytest.mark.parametrize("call", range(0, 14))
def test_members_lost_before_any_exchange_change_nothing(call, keep_state):
    wanted = job(6, keep_state, seed=call)
    group = Losing(InProcess().group(partial(PartitionMember, wanted), 6, Resources()), {call: [2, 5]})
    assert_equal(settle(group, "finish", checkpoint_every=2), whole(wanted))


def test_one_member_lost_after_another_changes_nothing():
    wanted = job(5, keep_state=True, seed=3)
    losses = {call: [call % 5] for call in range(1, 40, 2)}
    group = Losing(InProcess().group(partial(PartitionMember, wanted), 5, Resources()), losses)
    assert_equal(settle(group, "finish", checkpoint_every=1), whole(wanted))


def test_a_graph_that_is_not_symmetric_is_an_error_not_an_endless_loop():
    wanted = job(2)
    graph = wanted.graph
    row_E = np.repeat(np.arange(N), np.diff(graph.indptr))
    row = row_E[(row_E < N // 2) & (graph.indices >= N // 2)][0]
    stays_E = (row_E != row) | (graph.indices < N // 2)
    indptr = np.searchsorted(row_E[stays_E], np.arange(N + 1))
    bad = Job(
        Graph(indptr, graph.indices[stays_E], graph.sq_distances[stays_E]),
        wanted.difficulty,
        wanted.starts,
        False,
    )
    with pytest.raises(D2PruneError, match="not symmetric"):
        settle(InProcess().group(partial(PartitionMember, bad), 2, Resources()), "finish")


@pytest.fixture(scope="module")
def on_ray():
    executor = OnRay(num_cpus=4)
    yield executor
    executor.close()


@given(st.lists(problems(), min_size=20, max_size=60), st.integers(0, 2**32 - 1))
@settings(max_examples=2, deadline=None, phases=[Phase.generate], derandomize=True)
def test_ray_equals_the_naive_greedy_on_graphs_of_every_shape(on_ray, several, seed):
    """Many small graphs as one, its nodes in random order, so that every shape is cut by partitions."""
    sizes = [graph.n_nodes for graph, _ in several]
    place = np.random.default_rng(seed).permutation(sum(sizes))
    edges, difficulty, first = {}, np.zeros(len(place)), 0
    for graph, scores in several:
        here = place[first : first + graph.n_nodes]
        difficulty[here] = scores
        for i, near in enumerate(neighbours(graph)):
            edges |= {(int(here[i]), int(here[j])): d for j, d in near.items() if here[i] < here[j]}
        first += graph.n_nodes
    wanted = Job(
        graph_from_edges(len(place), edges),
        difficulty,
        (0, 1, len(place) // 3, 2 * len(place) // 3, len(place)),
        False,
    )
    group = on_ray.group(partial(PartitionMember, wanted), 4, Resources(num_cpus=1))
    try:
        results = settle(group, "finish")
    finally:
        group.close()
    forward, t, _, suppressed_by, suppression = naive_d2(wanted.graph, difficulty)
    assert_equal(results, (forward, t, suppressed_by, suppression))


def test_a_killed_actor_changes_nothing(on_ray):
    wanted = job(4, seed=9)
    group = on_ray.group(partial(PartitionMember, wanted), 4, Resources(num_cpus=1))

    class Killing(Losing):
        def exchange(self, method, members, inboxes, *arguments):
            if self.calls in self.losses:
                on_ray._ray.kill(self.group.actor(1), no_restart=False)
            self.calls += 1
            return self.group.exchange(method, members, inboxes, *arguments)

    killing = Killing(group, {0: (), 3: (), 4: ()})
    try:
        assert_equal(settle(killing, "finish"), whole(wanted))
    finally:
        group.close()
    assert killing.calls > 5
