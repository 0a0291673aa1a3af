"""One block: the kernel equals the naive greedy, bit for bit, on any graph and any number of threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2 import kernel, order
from d2prune.d2.api import select, selection_scores
from d2prune.d2.budget import top
from d2prune.d2.fixed_point import to_fixed
from d2prune.errors import UserError
from tests.oracles import graph_from_edges, naive_d2, paper_picks
from tests.selection.graphs import GAMMAS, graphs, problems


@given(problems(), GAMMAS, GAMMAS)
@settings(max_examples=400, deadline=None)
def test_kernel_equals_naive_greedy(problem, gamma_forward, gamma_reverse):
    graph, scores = problem
    t = selection_scores(graph, scores, gamma_forward, gamma_reverse, threads=1)
    assert t.dtype == np.int64
    assert t.tolist() == naive_d2(graph, scores, gamma_forward, gamma_reverse)[1]


@given(problems(), GAMMAS)
@settings(max_examples=150, deadline=None)
def test_threads_do_not_change_a_bit(problem, gamma):
    graph, scores = problem
    one = selection_scores(graph, scores, gamma, gamma, threads=1)
    for threads in (2, 3):
        assert (selection_scores(graph, scores, gamma, gamma, threads=threads) == one).all()


@given(graphs(), st.randoms(use_true_random=False), st.sampled_from([0.1, 1.0]))
@settings(max_examples=200, deadline=None)
def test_the_paper_picks_the_same_while_values_are_positive(graph, random, gamma):
    scores = [1 + random.randrange(1, 10**6) / 10**6 for _ in range(graph.n_nodes)]
    picks, values, leads = paper_picks(graph, scores, graph.n_nodes, gamma, gamma)
    # Up to the first value that is not positive, or a lead so small that floats and fixed point may differ.
    m = next((k for k in range(len(picks)) if values[k] <= 1e-6 or leads[k] <= 1e-6), len(picks))
    t = selection_scores(graph, scores, gamma, gamma)
    assert top(t, m).tolist() == picks[:m]
    assert np.allclose(t[picks[:m]] / 2**40, values[:m], atol=1e-9)


def test_a_random_larger_graph_equals_the_greedy():
    rng = np.random.default_rng(5)
    n = 600
    pairs = rng.integers(0, n, (3000, 2))
    edges = {(min(i, j), max(i, j)): (i + j) % 40 / 20 for i, j in pairs.tolist() if i != j}
    edges |= {(0, j): 0.5 for j in range(1, 300)}  # a hub
    graph = graph_from_edges(n, edges)
    scores = rng.integers(0, 50, n) / 50
    t = naive_d2(graph, scores)[1]
    for threads in (1, 2, 5):
        assert selection_scores(graph, scores, threads=threads).tolist() == t


def test_a_chain_laid_across_threads_ends():
    n = 20_000
    order = np.random.default_rng(1).permutation(n)
    edges = {
        (min(a, b), max(a, b)): 12.0 for a, b in zip(order[:-1].tolist(), order[1:].tolist(), strict=True)
    }
    graph = graph_from_edges(n, edges)
    scores = np.empty(n)
    scores[order] = np.linspace(3, 1, n)
    one = selection_scores(graph, scores, threads=1)
    assert (selection_scores(graph, scores, threads=2) == one).all()
    assert (np.diff(one[order]) < 0).mean() > 0.9


def test_what_does_not_fit_is_refused():
    graph = graph_from_edges(2, {(0, 1): 1.0})
    with pytest.raises(UserError, match="difficulty has 3 scores"):
        selection_scores(graph, [1, 1, 1])
    with pytest.raises(UserError, match="threads is 0"):
        selection_scores(graph, [1, 1], threads=0)
    with pytest.raises(UserError, match=r"difficulty\[1\]"):
        selection_scores(graph, [1, -1])
    assert selection_scores(graph_from_edges(0, {}), []).tolist() == []


def test_blocks_sorted_one_after_another_give_the_same():
    # Neighbours near in memory and more nodes than a block: the whole graph is settled block by block.
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


def test_offsets_of_edges_may_exceed_32_bits(tmp_path):
    # Node 0 has 2**31 edges, in sparse files, and is never looked at; the rows of the others begin beyond it.
    far = 2**31
    indices = np.asarray(np.memmap(tmp_path / "indices", np.int64, "w+", shape=far + 4))
    distances = np.asarray(np.memmap(tmp_path / "distances", np.float32, "w+", shape=far + 4))
    indptr = np.array([0, far, far + 1, far + 3, far + 4])
    indices[far:], distances[far:] = [2, 1, 3, 2], [1.0, 1.0, 0.5, 0.5]
    scores, x = to_fixed([0, 0.5, 1, 0.75]), np.zeros(4, np.int64)
    assert kernel.forward(indptr, indices, distances, 1.0, scores, x, 1, 4) == kernel.NO_OVERFLOW
    value, head, link = kernel.new_state(4)
    value[:] = x
    queue, ends = np.empty(4, np.int32), np.empty(order.N_BUCKETS + 1, np.int64)
    queued = order.sort_into_buckets(value, head, 1, 4, queue, ends)
    settled = kernel.settle(
        indptr, indices, distances, 1.0, np.empty(0, np.int64), value, head, link,
        1, 4, queue[:queued], ends, order.NOBODY, False,
    )  # fmt: skip
    assert settled == (3, kernel.NO_OVERFLOW)
    expected = select(graph_from_edges(3, {(0, 1): 1.0, (1, 2): 0.5}), [0.5, 1, 0.75])
    assert x[1:].tolist() == expected.forward_score.tolist()
    assert value[1:].tolist() == expected.selection_score.tolist()
