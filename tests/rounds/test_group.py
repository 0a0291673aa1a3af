"""Rounds over a group give the same bits for any number of members, whichever are lost."""

from functools import partial

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from d2prune.d2.api import select
from d2prune.errors import D2PruneError
from d2prune.execution import InProcess, Resources
from d2prune.knn.csr import Graph
from d2prune.rounds.group import run_to_completion
from tests.graphs import problems
from tests.oracles import graph_from_edges, naive_d2, neighbours
from tests.rounds.graph_member import GraphJob, GraphMember, LossyGroup

N = 300


def make_job(size, keep_checkpoints=False, seed=0):
    rng = np.random.default_rng(seed)
    pairs = {tuple(sorted(pair)) for pair in rng.integers(0, N, (900, 2)).tolist() if pair[0] != pair[1]}
    graph = graph_from_edges(N, {pair: float(rng.integers(0, 4)) / 2 for pair in sorted(pairs)})
    starts = tuple(np.linspace(0, N, size + 1).astype(int).tolist())
    # Few distinct values, so that every round has ties between partitions.
    return GraphJob(graph, rng.integers(0, 8, N) / 4, starts, keep_checkpoints)


def make_group(job, size, executor=None, **resources):
    return (executor or InProcess()).group(partial(GraphMember, job), size, Resources(**resources))


def assert_equals_whole_graph(results, job):
    expected = select(job.graph, job.difficulty, 1.0, 1.0)
    assert_equal(
        results,
        (expected.forward_score, expected.selection_score, expected.suppressed_by, expected.suppression),
    )


def assert_equal(results, expected):
    for column, values in zip(zip(*results, strict=True), expected, strict=True):
        np.testing.assert_array_equal(np.concatenate(column), values)


@pytest.fixture(autouse=True)
def _no_checkpoints_of_other_tests():
    GraphMember.checkpoints.clear()


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_any_number_of_members_equals_one_kernel(size):
    job = make_job(size)
    assert_equals_whole_graph(run_to_completion(make_group(job, size), "commit"), job)


@pytest.mark.parametrize("keep_checkpoints", [False, True], ids=["without checkpoints", "with checkpoints"])
@pytest.mark.parametrize("call", range(0, 14))
def test_losing_members_before_any_exchange_changes_nothing(call, keep_checkpoints):
    job = make_job(6, keep_checkpoints, seed=call)
    group = LossyGroup(make_group(job, 6), {call: [2, 5]})
    assert_equals_whole_graph(run_to_completion(group, "commit", checkpoint_every=2), job)


def test_losing_one_member_after_another_changes_nothing():
    job = make_job(5, keep_checkpoints=True, seed=3)
    group = LossyGroup(make_group(job, 5), {call: [call % 5] for call in range(1, 40, 2)})
    assert_equals_whole_graph(run_to_completion(group, "commit", checkpoint_every=1), job)


def test_asymmetric_graph_is_an_error():
    job = make_job(2)
    graph = job.graph
    row_E = np.repeat(np.arange(N), np.diff(graph.indptr))
    row = row_E[(row_E < N // 2) & (graph.indices >= N // 2)][0]
    kept_E = (row_E != row) | (graph.indices < N // 2)
    indptr = np.searchsorted(row_E[kept_E], np.arange(N + 1))
    asymmetric = Graph(indptr, graph.indices[kept_E], graph.sq_distances[kept_E])
    bad = GraphJob(asymmetric, job.difficulty, job.starts, False)
    with pytest.raises(D2PruneError, match="not symmetric"):
        run_to_completion(make_group(bad, 2), "commit")


@given(st.lists(problems(), min_size=20, max_size=60), st.integers(0, 2**32 - 1))
@settings(max_examples=2, deadline=None, phases=[Phase.generate], derandomize=True)
def test_partitions_on_ray_equal_the_naive_greedy_on_graphs_of_every_shape(ray_executor, several, seed):
    """Many small graphs in one, with nodes in random order, so that partitions cut every shape."""
    sizes = [graph.n_nodes for graph, _ in several]
    permutation = np.random.default_rng(seed).permutation(sum(sizes))
    edges, difficulty, first = {}, np.zeros(len(permutation)), 0
    for graph, scores in several:
        node = permutation[first : first + graph.n_nodes]
        difficulty[node] = scores
        for i, near in enumerate(neighbours(graph)):
            edges |= {(int(node[i]), int(node[j])): d for j, d in near.items() if node[i] < node[j]}
        first += graph.n_nodes
    n = len(permutation)
    job = GraphJob(graph_from_edges(n, edges), difficulty, (0, 1, n // 2, n), False)
    group = make_group(job, 3, ray_executor, num_cpus=0.5)
    try:
        results = run_to_completion(group, "commit")
    finally:
        group.close()
    forward, t, _, suppressed_by, suppression = naive_d2(job.graph, difficulty)
    assert_equal(results, (forward, t, suppressed_by, suppression))


def test_killing_an_actor_on_ray_changes_nothing(ray_executor):
    job = make_job(2, seed=9)
    group = make_group(job, 2, ray_executor, num_cpus=0.5)

    class KillingGroup(LossyGroup):
        def exchange(self, method, members, inboxes, *arguments):
            if self.calls in self.losses:
                ray_executor._ray.kill(self.group.actor(1), no_restart=False)
            self.calls += 1
            return self.group.exchange(method, members, inboxes, *arguments)

    killing = KillingGroup(group, {0: (), 3: (), 4: ()})
    try:
        assert_equals_whole_graph(run_to_completion(killing, "commit"), job)
    finally:
        group.close()
    assert killing.calls > 5
