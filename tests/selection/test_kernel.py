"""One block: the kernel equals the naive greedy, bit for bit, on any graph and any number of threads."""

import numpy as np
from hypothesis import given, settings

from pipeline.selection.api import selection_scores
from tests.oracles import naive_d2
from tests.selection.graphs import GAMMAS, problems


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
