"""Baselines of one number per sample equal the naive references, also on ties and a single sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.baselines import by_score
from d2prune.baselines.order import first
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows
from tests import oracles_baselines as oracles
from tests.graphs import GAMMAS, problems
from tests.oracles import naive_d2

SCORES = st.lists(
    st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0, 1.0, 7.0]) | st.floats(-3, 3), min_size=1, max_size=30
)


@given(SCORES)
def test_top_score_equals_the_reference(score):
    assert by_score.top_score(score).tolist() == sorted(range(len(score)), key=lambda i: (-score[i], i))


@settings(deadline=None)
@given(problems(), GAMMAS)
def test_forward_equals_the_reference(problem, gamma):
    graph, score = problem
    x = naive_d2(graph, score, gamma, 0.0)[0]
    assert by_score.forward(graph, score, gamma).tolist() == sorted(range(len(x)), key=lambda i: (-x[i], i))


def test_random_is_a_seeded_permutation():
    order = by_score.random(1000, 3)
    assert sorted(order.tolist()) == list(range(1000))
    assert (order == by_score.random(1000, 3)).all() and (order != by_score.random(1000, 4)).any()
    # The input's order is gone: each tenth of the pool has about a tenth of the picks.
    assert np.bincount(order[:500] // 100).min() > 30
    assert by_score.random(1).tolist() == [0]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_moderate_equals_the_reference(n, classes, seed, equal):
    rng = np.random.default_rng(seed)
    rows = np.ones((n, 3), np.float32) if equal else rng.integers(-2, 3, (n, 3)).astype(np.float32) + 0.5
    labels = rng.integers(0, classes, n)
    names = np.array(["cat", "dog", "emu", "fox"])[labels]
    assert by_score.moderate(rows, names).tolist() == oracles.moderate(unit_rows(rows), labels.tolist())
    assert by_score.moderate(rows).tolist() == oracles.moderate(unit_rows(rows), [0] * n)


@settings(deadline=None, max_examples=200)
@given(SCORES, st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.integers(1, 8), st.integers(0, 99), st.data())
def test_ccs_equals_the_papers_algorithm_at_every_size(score, beta, n_strata, seed, data):
    order = by_score.ccs(score, beta, n_strata, seed)
    m = data.draw(st.integers(1, len(order)))

    def shuffle(n):
        return np.random.default_rng(seed).permutation(n).tolist()

    assert sorted(first(order, m).tolist()) == oracles.ccs(score, m, beta, n_strata, shuffle)


def test_ccs_covers_rare_scores():
    score = np.concatenate([np.full(90, 0.05), np.linspace(0.2, 1, 10)])
    picks = first(by_score.ccs(score, 0.0, 10), 20)
    assert set(range(90, 100)) <= set(picks.tolist())
    dropped = by_score.ccs(score, 0.1, 10)
    assert len(dropped) == 90 and dropped.max() == 89


def test_first_divides_among_groups_and_checks_the_size():
    order = np.array([4, 2, 0, 1, 3])
    assert first(order, 2).tolist() == [4, 2]
    assert first(order, 4, groups=["a", "a", "b", "b", "b"]).tolist() == [4, 2, 0, 1]
    assert first(order[:3], 2, groups=["a", "a", "b", "b", "b"]).tolist() == [4, 0]
    for m in (0, 6):
        with pytest.raises(UserError, match="expected 1 <= size <= 5"):
            first(order, m)


def test_invalid_arguments_are_rejected():
    with pytest.raises(UserError, match=r"score\[1\]: found nan"):
        by_score.top_score([0.0, np.nan])
    with pytest.raises(UserError, match="N >= 1"):
        by_score.ccs([])
    with pytest.raises(UserError, match="n_strata is 0"):
        by_score.ccs([1.0], n_strata=0)
    with pytest.raises(UserError, match="drop_fraction: found 1"):
        by_score.ccs([1.0], drop_fraction=1)
    with pytest.raises(UserError, match="n is 0 samples, expected at least 1"):
        by_score.random(0)
    with pytest.raises(UserError, match="labels: found 1 labels; expected 2"):
        by_score.moderate(np.ones((2, 2)), [1])
