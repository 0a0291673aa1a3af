"""`d2_prune` from embeddings to coreset, on small pools."""

import doctest

import numpy as np
import pytest

from d2prune.d2 import coreset
from d2prune.d2.api import selection_scores
from d2prune.d2.coreset import DROPPED, d2_prune
from d2prune.errors import UserError
from d2prune.knn.in_memory import knn_graph
from d2prune.scores.column import shift
from tests.oracles import naive_d2


@pytest.fixture
def pool():
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(8, 6))
    x = (centres[rng.integers(0, 8, 120)] + 0.2 * rng.normal(size=(120, 6))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), rng.random(120)


def test_docstring_example_runs():
    failures, tests = doctest.testmod(coreset)
    assert (failures, tests > 3) == (0, True)


def test_coreset_equals_the_greedy_algorithm_of_the_paper(pool):
    x, difficulty = pool
    got = d2_prune(x, difficulty, fraction=0.3, n_neighbors=5, gamma_forward=1.0, gamma_reverse=0.5, offset=0)
    _, t, order, suppressed_by, _ = naive_d2(knn_graph(x, 5), difficulty, 1.0, 0.5)
    assert got.selection_score.tolist() == t
    assert got.suppressed_by.tolist() == suppressed_by
    assert got.indices.tolist() == sorted(range(120), key=lambda i: (-t[i], i))[:36]
    assert set(got.indices.tolist()) == set(order[:36])


def test_coreset_of_a_smaller_fraction_is_a_prefix(pool):
    x, difficulty = pool
    large = d2_prune(x, difficulty, fraction=0.5).indices
    for fraction in (0.1, 0.25):
        small = d2_prune(x, difficulty, fraction=fraction).indices
        assert (large[: len(small)] == small).all()


def test_groups_and_dropped_samples(pool):
    x, difficulty = pool
    labels = np.arange(120) % 3
    aum = np.arange(120)[::-1]
    got = d2_prune(x, difficulty, fraction=0.5, groups=labels, drop_score=aum, drop_fraction=0.25)
    assert len(got.indices) == 60
    assert got.indices.max() < 90  # the last 30 have the lowest margin
    assert np.bincount(labels[got.indices]).tolist() == [20, 20, 20]
    assert (got.selection_score[90:] == DROPPED).all() and (got.selection_score[:90] > DROPPED).all()
    alone = d2_prune(x[:90], difficulty[:90], fraction=0.5)
    assert (alone.selection_score == got.selection_score[:90]).all()
    assert (alone.suppressed_by == got.suppressed_by[:90]).all()


def test_offset_is_added_and_recorded(pool):
    x, difficulty = pool
    lowest = float((difficulty - 7).min())
    auto = d2_prune(x, difficulty - 7, fraction=0.3)
    given = d2_prune(x, difficulty - 7, fraction=0.3, offset=-lowest)
    assert auto.offset == given.offset == -lowest > 6
    assert (given.selection_score == auto.selection_score).all()
    none = d2_prune(x, difficulty, 0.3, offset=0)
    assert none.offset == 0
    assert (none.selection_score == selection_scores(knn_graph(x, 5), difficulty)).all()


def test_offset_has_the_meaning_of_a_run(pool):
    """Of float32 scores, as a run stores them, the difficulty has the bits of a run."""
    x, score = pool[0], (pool[1] * 3 - 2).astype(np.float32)
    for offset, added in (("auto", -float(score.min())), (1.5, 1.5)):
        expected = selection_scores(knn_graph(x, 5), shift(score, added))
        assert (d2_prune(x, score, 0.3, offset=offset).selection_score == expected).all()


def test_offset_that_leaves_no_difficulty_is_a_warning(pool):
    x, difficulty = pool
    for arguments in ({"offset": -5}, {"difficulty": np.ones(120)}):
        with pytest.warns(UserWarning, match="every score plus the offset"):
            d2_prune(x, **({"difficulty": difficulty} | arguments))


def test_invalid_arguments_are_rejected(pool):
    x, difficulty = pool
    with pytest.raises(UserError, match="embeddings"):
        d2_prune(x[0], difficulty)
    with pytest.raises(UserError, match="difficulty: found"):
        d2_prune(x, difficulty[:5])
    with pytest.raises(UserError, match="groups: found"):
        d2_prune(x, difficulty, groups=[1])
    with pytest.raises(UserError, match="drop_score: found None"):
        d2_prune(x, difficulty, drop_fraction=0.1)
    with pytest.raises(UserError, match="at most the 12"):
        d2_prune(x, difficulty, fraction=0.3, drop_score=difficulty, drop_fraction=0.9)
