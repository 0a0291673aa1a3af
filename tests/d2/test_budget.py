"""Budgets are exact: sums, nesting, and a threshold over parts that equals a global sort."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2 import budget
from d2prune.errors import UserError

T = st.lists(st.integers(-(2**62), 2**62) | st.integers(-2, 2), min_size=1, max_size=60)


def by_definition(t, m):
    return sorted(range(len(t)), key=lambda i: (-t[i], i))[:m]


@settings(deadline=None)
@given(T, st.data())
def test_top_sorts_by_falling_score_then_position_and_is_nested(t, data):
    m = data.draw(st.integers(0, len(t)))
    got = budget.top(np.array(t, np.int64), m)
    assert got.tolist() == by_definition(t, m)
    smaller = budget.top(np.array(t, np.int64), m // 2)
    assert got[: m // 2].tolist() == smaller.tolist()


@settings(deadline=None)
@given(T, st.data(), st.sampled_from([4, 8, 16]))
def test_radix_select_over_parts_equals_a_global_sort(t, data, bits):
    m = data.draw(st.integers(1, len(t)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(t)), max_size=4)))
    parts = np.split(np.array(t, np.int64), cuts)
    rounds = []

    def total(prefix, known, bits):
        rounds.append(known)
        return sum(budget.histogram(part, prefix, known, bits) for part in parts)

    threshold = budget.select_threshold(total, m, bits)
    assert len(rounds) == 64 // bits
    before, kept = 0, []
    for part in parts:
        kept.append(budget.kept_in_part(part, threshold, before))
        before += budget.count_ties(part, threshold)
    assert np.flatnonzero(np.concatenate(kept)).tolist() == sorted(by_definition(t, m))


@settings(deadline=None)
@given(T, st.data())
def test_groups_keep_exact_quotas_of_their_best(t, data):
    n = len(t)
    groups = data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    m = data.draw(st.integers(0, n))
    got = budget.top(np.array(t, np.int64), m, groups)
    assert len(got) == m
    assert got.tolist() == [i for i in by_definition(t, n) if i in set(got.tolist())]
    for g in set(groups):
        members = [i for i in range(n) if groups[i] == g]
        mine = [i for i in got.tolist() if groups[i] == g]
        assert abs(len(mine) - Fraction(len(members) * m, n)) < 1
        assert mine == [i for i in by_definition(t, n) if groups[i] == g][: len(mine)]


def test_quotas_use_the_largest_remainder():
    assert budget.quotas([5, 3, 2], 5) == [
        3,
        1,
        1,
    ]  # 2.5, 1.5, 1.0: of equal remainders the earlier is rounded up
    assert budget.quotas([1, 1, 1], 2) == [1, 1, 0]
    assert budget.quotas([0, 4], 3) == [0, 3]
    assert budget.quotas([], 0) == []
    with pytest.raises(UserError, match="size is 5"):
        budget.quotas([2, 2], 5)


@pytest.mark.parametrize(
    ("n", "fraction", "m"),
    [
        (10, 0.3, 3),
        (10, 0.29, 2),
        (10, 0.01, 1),
        (10, 1.0, 10),
        (1000, 0.001, 1),
        (12_800_000_000, 0.3, 3_840_000_000),
    ],
)
def test_fraction_is_floored_as_a_decimal_number(n, fraction, m):
    assert budget.size_of_fraction(n, fraction) == m


def test_every_decimal_fraction_is_exact():
    for hundredths in range(1, 101):
        assert budget.size_of_fraction(100, hundredths / 100) == hundredths


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fraction_out_of_range_is_rejected(fraction):
    with pytest.raises(UserError, match="fraction"):
        budget.size_of_fraction(10, fraction)


def test_drop_mask_drops_the_lowest_and_of_equal_scores_the_later():
    assert budget.drop_mask([3, 1, 2, 1], 0.25).tolist() == [False, False, False, True]
    assert budget.drop_mask([3, 1, 2, 1], 0.5).tolist() == [False, True, False, True]
    assert budget.drop_mask([3, 1, 2, 1], 0.0).tolist() == [False] * 4
    with pytest.raises(UserError, match="finite"):
        budget.drop_mask([1.0, float("nan")], 0.5)
    with pytest.raises(UserError, match="drop_fraction"):
        budget.drop_mask([1.0], 1.0)


def test_minimum_score_keeps_scores_equal_to_it():
    t = np.array([-(1 << 40), 0, 1 << 40, (1 << 40) - 1], np.int64)
    assert budget.kept_in_part(t, budget.threshold_of_score(1.0), 0).tolist() == [False, False, True, False]
    assert budget.kept_in_part(t, budget.threshold_of_score(-1.0), 0).all()


def test_size_larger_than_the_pool_is_rejected():
    t = np.arange(3, dtype=np.int64)
    with pytest.raises(UserError, match="size is 4"):
        budget.select_threshold(lambda *a: budget.histogram(t, *a), 4)
    with pytest.raises(UserError, match="size is 4"):
        budget.top(t, 4)
    with pytest.raises(UserError, match="groups"):
        budget.top(t, 2, [0])
