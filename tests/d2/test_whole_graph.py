"""Both passes over a whole graph: threads and blocks do not change the result."""

import numpy as np
import pytest
from hypothesis import given, settings

from d2prune.d2.api import selection_scores
from d2prune.errors import UserError
from tests.graphs import GAMMAS, problems
from tests.oracles import graph_from_edges


@given(problems(), GAMMAS)
@settings(max_examples=150, deadline=None)
def test_number_of_threads_changes_nothing(problem, gamma):
    graph, scores = problem
    one = selection_scores(graph, scores, gamma, gamma, threads=1)
    for threads in (2, 3):
        assert (selection_scores(graph, scores, gamma, gamma, threads=threads) == one).all()


def test_chain_that_alternates_between_threads_terminates():
    n = 20_000
    order = np.random.default_rng(1).permutation(n)
    edges = {
        (min(a, b), max(a, b)): 12.0 for a, b in zip(order[:-1].tolist(), order[1:].tolist(), strict=True)
    }
    graph = graph_from_edges(n, edges)
    scores = np.empty(n)
    scores[order] = np.linspace(3, 1, n)
    one = selection_scores(graph, scores, 1.0, 1.0, threads=1)
    assert (selection_scores(graph, scores, 1.0, 1.0, threads=2) == one).all()
    assert (np.diff(one[order]) < 0).mean() > 0.9


def test_sorting_block_by_block_changes_nothing():
    # Neighbours close in memory, and more nodes than a block: values are sorted block by block.
    rng = np.random.default_rng(11)
    n = 40_000
    near = np.sort((np.arange(n)[:, None] + rng.integers(1, 40, (n, 3))) % n, axis=1)
    edges = {
        (min(i, j), max(i, j)): (i * 7 + j) % 11 / 8
        for i, row in enumerate(near.tolist())
        for j in row
        if i != j
    }
    graph = graph_from_edges(n, edges)
    scores = rng.integers(0, 30, n) / 30
    one = selection_scores(graph, scores, threads=1)
    assert (selection_scores(graph, scores, threads=3) == one).all()
    assert (selection_scores(graph, scores, partitions=rng.integers(0, 2, n)) == one).all()


def test_invalid_arguments_are_rejected():
    graph = graph_from_edges(2, {(0, 1): 1.0})
    with pytest.raises(UserError, match="difficulty has 3 scores"):
        selection_scores(graph, [1, 1, 1])
    with pytest.raises(UserError, match="threads: found 0"):
        selection_scores(graph, [1, 1], threads=0)
    with pytest.raises(UserError, match=r"difficulty\[1\]"):
        selection_scores(graph, [1, -1])
    assert selection_scores(graph_from_edges(0, {}), []).tolist() == []
