"""The kernel equals the naive greedy algorithm, bit for bit, on any graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2 import kernel
from d2prune.d2.api import select, selection_scores
from d2prune.d2.bucket_queue import N_BUCKETS, sort_into_buckets
from d2prune.d2.budget import top
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.waiting_lists import NO_NODE
from tests.graphs import GAMMAS, graphs, problems
from tests.oracles import graph_from_edges, naive_d2, paper_picks


@given(problems(), GAMMAS, GAMMAS)
@settings(max_examples=400, deadline=None)
def test_scores_equal_the_naive_greedy(problem, gamma_forward, gamma_reverse):
    graph, scores = problem
    t = selection_scores(graph, scores, gamma_forward, gamma_reverse, threads=1)
    assert t.dtype == np.int64
    assert t.tolist() == naive_d2(graph, scores, gamma_forward, gamma_reverse)[1]


@given(graphs(), st.randoms(use_true_random=False), st.sampled_from([0.1, 1.0]))
@settings(max_examples=200, deadline=None)
def test_picks_equal_the_papers_definition_while_values_are_positive(graph, random, gamma):
    scores = [1 + random.randrange(1, 10**6) / 10**6 for _ in range(graph.n_nodes)]
    picks, values, leads = paper_picks(graph, scores, graph.n_nodes, gamma, gamma)
    # Up to the first value that is not positive, or a lead within the error of floats.
    m = next((k for k in range(len(picks)) if values[k] <= 1e-6 or leads[k] <= 1e-6), len(picks))
    t = selection_scores(graph, scores, gamma, gamma)
    assert top(t, m).tolist() == picks[:m]
    assert np.allclose(t[picks[:m]] / 2**40, values[:m], atol=1e-9)


def test_larger_random_graph_equals_the_naive_greedy():
    rng = np.random.default_rng(5)
    n = 600
    pairs = rng.integers(0, n, (3000, 2))
    edges = {(min(i, j), max(i, j)): (i + j) % 40 / 20 for i, j in pairs.tolist() if i != j}
    edges |= {(0, j): 0.5 for j in range(1, 300)}  # a hub
    graph = graph_from_edges(n, edges)
    scores = rng.integers(0, 50, n) / 50
    t = naive_d2(graph, scores)[1]
    for threads in (1, 2, 5):
        assert selection_scores(graph, scores, 1.0, 1.0, threads=threads).tolist() == t


def test_edge_offsets_may_exceed_32_bits(tmp_path):
    # Node 0 has 2**31 edges in sparse files and is never visited; the rows of the other nodes follow.
    far = 2**31
    indices = np.asarray(np.memmap(tmp_path / "indices", np.int64, "w+", shape=far + 4))
    distances = np.asarray(np.memmap(tmp_path / "distances", np.float32, "w+", shape=far + 4))
    indptr = np.array([0, far, far + 1, far + 3, far + 4])
    indices[far:], distances[far:] = [2, 1, 3, 2], [1.0, 1.0, 0.5, 0.5]
    scores, x = to_fixed([0, 0.5, 1, 0.75]), np.zeros(4, np.int64)
    assert kernel.forward_pass(indptr, indices, distances, 1.0, scores, x, 1, 4) == kernel.NO_OVERFLOW
    value, head, link = kernel.new_state(4)
    value[:] = x
    queue, ends = np.empty(4, np.int32), np.empty(N_BUCKETS + 1, np.int64)
    queued = sort_into_buckets(value, head, 1, 4, queue, ends)
    finalised = kernel.finalise_nodes(
        indptr, indices, distances, 1.0, np.empty(0, np.int64), value, head, link,
        1, 4, queue[:queued], ends, NO_NODE, False,
    )  # fmt: skip
    assert finalised == (3, kernel.NO_OVERFLOW)
    expected = select(graph_from_edges(3, {(0, 1): 1.0, (1, 2): 0.5}), [0.5, 1, 0.75], 1.0, 1.0)
    assert x[1:].tolist() == expected.forward_score.tolist()
    assert value[1:].tolist() == expected.selection_score.tolist()
