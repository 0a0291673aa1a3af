"""Fixed-point arithmetic equals plain Python floats, bit for bit, and its limits are checked."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from d2prune.d2.api import selection_scores
from d2prune.d2.fixed_point import SCALE, exp_neg, message, to_fixed, to_float, to_signed_fixed
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from tests.oracles import graph_from_edges, naive_exp_neg


@njit
def exp_of_each(x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = exp_neg(x[i])
    return out


@njit
def one_message(value, gamma, sq_distance):
    return message(value, gamma, sq_distance)


def test_exp_equals_plain_python_floats_and_is_within_one_ulp():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(0, 1, 20_000), rng.uniform(0, 45, 20_000), np.arange(46.0), [0.0, 5e-324, 1e-17]]
    )
    got = exp_of_each(x)  # a loop that the compiler may vectorise
    assert got.tolist() == [naive_exp_neg(v) for v in x.tolist()]
    true = np.exp(-x.astype(np.longdouble))
    assert (abs(got - true) <= np.spacing(got)).all()
    assert exp_of_each(np.array([0.0, -0.0, 45.1, 1e300, np.inf])).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert (np.diff(exp_of_each(np.sort(rng.uniform(0, 45, 100_000)))) <= 0).all()


@given(st.integers(0, 2**62), st.sampled_from([0.0, 0.1, 1.0, 3.0]), st.floats(0, 2.0**99, width=32))
@settings(deadline=None)  # the first call compiles
def test_message_is_a_product_rounded_once(value, gamma, sq_distance):
    got = one_message(value, gamma, np.float32(sq_distance))
    assert got == round(naive_exp_neg(gamma * sq_distance) * float(value))
    assert 0 <= got <= float(value)


def test_zero_weights_are_exact_for_the_largest_value():
    assert math.exp(-45.0) * 2**62 < 0.5


def test_conversion_rounds_to_nearest_and_converts_back():
    s = np.array([0, 1, 0.25, 2**21, 1e-13], np.float64)
    assert to_fixed(s).tolist() == [0, 1 << 40, 1 << 38, 1 << 61, 0]
    assert to_float(to_fixed(s))[:4].tolist() == s[:4].tolist()
    assert to_fixed(np.float16([0.5])).tolist() == [1 << 39]
    assert to_fixed([True, False]).tolist() == [1 << 40, 0]
    assert SCALE == 2.0**40


def test_signed_conversion_keeps_order_and_magnitude():
    score = np.array([-3.5, -(2.0**-40), -0.0, 0.0, 2.0**-40, 0.7, 2.0**22 - 1], np.float64)
    assert to_signed_fixed(score).tolist() == [round(value * SCALE) for value in score]
    for bad in (-(2.0**22), np.nan, -np.inf):
        with pytest.raises(UserError, match=r"difficulty\[1\] is"):
            to_signed_fixed([0.0, bad])


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf, 2.0**22])
def test_score_out_of_range_is_rejected_by_name(bad):
    with pytest.raises(UserError, match=r"difficulty\[1\]"):
        to_fixed([0.5, bad])


def test_difficulty_that_is_not_a_1d_array_of_numbers_is_rejected():
    for bad in ([[1.0]], ["a"], [1j]):
        with pytest.raises(UserError, match=r"real numbers|expected a number"):
            to_fixed(bad)


def test_overflow_is_an_error_in_both_passes_with_and_without_partitions():
    star = graph_from_edges(9, {(0, j): 0.0 for j in range(1, 9)})
    big = np.full(9, 2.0**21)
    for partitions in (None, [0] * 9, range(9)):
        with pytest.raises(UserError, match=r"node 0: its value exceeds \+-4194304"):
            selection_scores(star, big, partitions=partitions)
        # Forward messages vanish, reverse messages are full: the others lower node 0 below -2**22.
        far = Graph(star.indptr, star.indices, np.full(16, 60.0, np.float32))
        with pytest.raises(UserError, match=r"node 0: its value exceeds \+-4194304"):
            selection_scores(far, [0.0] + [2.0**21.9] * 8, 1.0, 0.0, partitions=partitions)


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_gamma_out_of_range_is_rejected(gamma):
    graph = graph_from_edges(2, {(0, 1): 1.0})
    with pytest.raises(UserError, match="gamma_forward"):
        selection_scores(graph, [1, 1], gamma_forward=gamma)
    with pytest.raises(UserError, match="gamma_reverse"):
        selection_scores(graph, [1, 1], gamma_reverse=gamma)
