"""Estimates of time left on simulated stages: within a factor of 2 after a tenth of the work, or none."""

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.execution.time_left import TimeLeft

KINDS = {
    "steady": lambda random, unit, share, rounds: unit * random.uniform(0.9, 1.1),
    "warm-up": lambda random, unit, share, rounds: (
        unit * (1 + 9 * math.exp(-rounds / 2)) * random.uniform(0.9, 1.1)
    ),
    "few big units": lambda random, unit, share, rounds: unit * (20 if random.random() < 0.05 else 1),
    "slower and slower": lambda random, unit, share, rounds: unit * (1 + 3 * share),
    "exponential": lambda random, unit, share, rounds: unit * random.expovariate(1),
    "heavy tail": lambda random, unit, share, rounds: unit * random.paretovariate(1.5),
}


def simulate(numbers, kind):
    """The times at which the units of a stage end, on workers that take a while to start."""
    count, workers = numbers.choice([6, 11, 20, 50, 200, 1000]), numbers.choice([1, 2, 4, 16, 64])
    unit = 10 ** numbers.uniform(-1, 2)
    start = unit * 10 ** numbers.uniform(-1, 1.3)
    free = [start * numbers.uniform(1, 1.1) for _ in range(workers)]
    heapq.heapify(free)
    ends = []
    for i in range(count):
        ends.append(heapq.heappop(free) + KINDS[kind](numbers, unit, i / count, i / workers))
        heapq.heappush(free, ends[-1])
    return sorted(ends)


def judge(ends):
    """For 39 moments after a tenth of the units: None without an estimate, else whether it is right."""
    left, done, verdicts = TimeLeft(0.0), 0, []
    for step in range(1, 40):
        now = ends[-1] * step / 40
        while done < len(ends) and ends[done] <= now:
            left.record(ends[done], done + 1)
            done += 1
        estimate, truth = left.estimate(now, len(ends)), ends[-1] - now
        if done < len(ends) / 10:
            assert estimate is None
        else:
            verdicts.append(None if estimate is None else truth / 2 <= estimate <= 2 * truth)
    return verdicts


@pytest.mark.parametrize(
    ("kind", "least_right", "least_shown"),
    [
        ("steady", 0.99, 0.35),
        ("warm-up", 0.97, 0.15),
        ("few big units", 0.88, 0.1),
        ("slower and slower", 0.92, 0.2),
        ("exponential", 0.93, 0.15),
        ("heavy tail", 0.78, 0.1),
    ],
)
def test_estimates_are_within_a_factor_of_two_or_not_shown(kind, least_right, least_shown):
    numbers = random.Random(1)
    verdicts = [verdict for _ in range(60) for verdict in judge(simulate(numbers, kind))]
    shown = [verdict for verdict in verdicts if verdict is not None]
    assert len(shown) >= least_shown * len(verdicts)
    assert sum(shown) >= least_right * len(shown)


def test_one_unit_after_a_long_start_gives_no_estimate():
    """The demo once showed 4 h 39 min for 2 s, because the first of 1,494 nodes was ready after a start."""
    left = TimeLeft(0.0)
    left.record(11.2, 1)
    assert left.estimate(11.2, 1494) is None
    left.record(11.3, 700)
    assert left.estimate(11.4, 1494) is None


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50)), max_size=60),
    st.integers(0, 20),
    st.integers(0, 200),
)
def test_any_trace_gives_a_finite_time_or_none(steps, finished, total):
    left, now, done = TimeLeft(0.0, finished), 0.0, finished
    for wait, more in steps:
        now, done = now + wait, done + more
        left.record(now, done)
        estimate = left.estimate(now, total)
        assert estimate is None or (math.isfinite(estimate) and estimate >= 0)


def test_many_moments_take_little_memory():
    left = TimeLeft(0.0)
    for i in range(1, 5_000):
        left.record(float(i), i)
    assert len(left._times) <= 1_500
    assert left.estimate(4_999.0, 10_000) == pytest.approx(5_001, rel=0.01)
