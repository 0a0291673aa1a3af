"""Partitions in one process: the same bits as the naive greedy for any partitioning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2.api import select, selection_scores
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.partition import GraphPartition, node_id
from d2prune.d2.rounds import run_rounds
from d2prune.errors import UserError
from tests.graphs import GAMMAS, problems
from tests.oracles import graph_from_edges, naive_d2


@given(problems(), GAMMAS, GAMMAS, st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_partitioning_equals_the_naive_greedy_in_every_result(
    problem, gamma_forward, gamma_reverse, n_parts, random
):
    graph, scores = problem
    labels = [random.randrange(-1, n_parts) for _ in range(graph.n_nodes)]
    forward, t, _, suppressed_by, suppression = naive_d2(graph, scores, gamma_forward, gamma_reverse)
    for partitions in (None, labels):
        got = select(graph, scores, gamma_forward, gamma_reverse, partitions)
        assert got.forward_score.tolist() == forward
        assert got.selection_score.tolist() == t
        assert got.suppressed_by.tolist() == suppressed_by
        assert got.suppression.tolist() == suppression


@pytest.mark.parametrize("n_parts", [4, 64])
@pytest.mark.parametrize("clustered", [True, False])
def test_larger_graph_on_many_partitions_equals_one_kernel(n_parts, clustered):
    rng = np.random.default_rng(7)
    n = 5000
    hops = rng.integers(1, 30, (n, 5))
    edges = {(min(i, j), max(i, j)): (i ^ j) % 97 / 48 for i in range(n) for j in (i + hops[i]) % n if i != j}
    graph = graph_from_edges(n, edges)
    scores = rng.integers(0, 20, n) / 10
    owner = np.arange(n) * n_parts // n if clustered else rng.integers(0, n_parts, n)
    one = selection_scores(graph, scores, threads=1)
    many = select(graph, scores, partitions=owner)
    assert (many.selection_score == one).all()
    assert many.rounds > 1 and many.messages > 0
    assert (selection_scores(graph, scores, threads=4) == one).all()


def test_decreasing_chain_across_partitions_needs_a_round_per_edge():
    n = 400
    graph = graph_from_edges(n, {(i, i + 1): 10.0 for i in range(n - 1)})
    scores = np.linspace(5, 1, n)
    partitions = np.arange(n) % 2
    got = select(graph, scores, 1.0, 1.0, partitions=partitions)
    assert got.rounds > n / 2  # every edge leads to the other partition
    assert got.selection_score.tolist() == naive_d2(graph, scores)[1]


def test_rows_that_disagree_about_an_edge_are_rejected():
    empty, one = np.empty(0, np.int64), np.ones(1, np.float32)
    left = GraphPartition(0, np.array([0]), np.array([0, 1]), node_id(1, np.array([0])), one, to_fixed([1]))
    right = GraphPartition(1, np.array([1]), np.array([0, 0]), empty, np.empty(0, np.float32), to_fixed([1]))
    with pytest.raises(UserError, match="not symmetric between partitions 0 and 1"):
        run_rounds([left, right])


def test_invalid_partition_labels_are_rejected():
    graph = graph_from_edges(2, {(0, 1): 1.0})
    for labels in ([0], [0.5, 1.0], [[0, 1]]):
        with pytest.raises(UserError, match="partitions"):
            selection_scores(graph, [1, 1], partitions=labels)
