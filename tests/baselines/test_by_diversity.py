"""Baselines whose picks depend on earlier picks equal the naive references, also on ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.baselines import by_diversity, by_score
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows
from d2prune.knn.in_memory import knn_graph
from d2prune.knn.quantiser import Quantiser, train
from tests import oracles_baselines as oracles
from tests.graphs import GAMMAS, graphs


@st.composite
def pools(draw):
    """float32 [N, D] on a coarse grid, so that duplicates and equal distances are common."""
    n, n_dims = draw(st.integers(1, 20)), draw(st.sampled_from([2, 3, 17]))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    if draw(st.booleans()):
        return np.ones((n, n_dims), np.float32)
    return (rng.integers(-1, 2, (n, n_dims)) + 0.25).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(pools(), st.integers(0, 5), st.data())
def test_k_center_equals_the_reference(rows, seed, data):
    m = data.draw(st.integers(1, len(rows)))
    got = by_diversity.k_center(rows, m, seed).tolist()
    assert got == oracles.k_center(unit_rows(rows), m, got[0])
    assert got == by_diversity.k_center(rows, None, seed)[:m].tolist()
    assert sorted(by_diversity.k_center(rows).tolist()) == list(range(len(rows)))


@settings(deadline=None, max_examples=60)
@given(pools(), st.data())
def test_herding_equals_the_reference(rows, data):
    m = data.draw(st.integers(1, len(rows)))
    assert by_diversity.herding(rows, m).tolist() == oracles.herding(unit_rows(rows), m)


@settings(deadline=None, max_examples=80)
@given(graphs(10), GAMMAS)
def test_facility_location_equals_the_reference(graph, gamma):
    assert by_diversity.facility_location(graph, None, gamma).tolist() == oracles.facility_location(
        graph, graph.n_nodes, gamma
    )
    assert by_diversity.facility_location(graph, 1, gamma).tolist() == oracles.facility_location(
        graph, 1, gamma
    )


@settings(deadline=None, max_examples=30)
@given(graphs(10), st.sampled_from([0, 0.05, 0.3, 7.0]), st.integers(0, 9999), st.data())
def test_info_max_equals_the_reference(graph, alpha, seed, data):
    score = np.random.default_rng(seed).integers(-3, 4, graph.n_nodes) / 4
    m = data.draw(st.integers(1, graph.n_nodes))
    assert by_diversity.info_max(graph, score, alpha, m).tolist() == oracles.info_max(graph, score, alpha, m)
    if alpha == 0:
        assert by_diversity.info_max(graph, score, 0).tolist() == by_score.top_score(score).tolist()


@pytest.mark.parametrize(
    ("score", "alpha", "message"),
    [
        ([1.0, 2.0], -0.1, "alpha: found -0.1; expected 0 to 100"),
        ([1.0, 2.0], float("nan"), "alpha: found nan; expected 0 to 100"),
        ([1.0], 0.1, "score has 1 entries, expected one per node"),
    ],
)
def test_info_max_refuses_what_it_cannot_use(score, alpha, message):
    with pytest.raises(UserError, match=message):
        by_diversity.info_max(knn_graph(np.eye(2, 3, dtype=np.float32), 1), score, alpha)


@settings(deadline=None, max_examples=60)
@given(pools(), st.booleans(), st.data())
def test_semdedup_equals_the_reference(rows, with_score, data):
    n_clusters, seed = data.draw(st.integers(1, len(rows))), data.draw(st.integers(0, 3))
    unit = unit_rows(rows)
    nearest = Quantiser(train(unit, n_clusters, seed, 10)).nearest(unit, 1)
    score = np.random.default_rng(seed).integers(0, 3, len(rows)) if with_score else None
    priority = score if with_score else nearest.sq_distances[:, 0]
    order, distance = by_diversity.semdedup(rows, n_clusters, score, seed)
    expected_order, expected = oracles.semdedup(unit, nearest.positions[:, 0].tolist(), priority.tolist())
    assert order.tolist() == expected_order
    assert distance.tolist() == expected


def test_semdedup_keeps_the_best_of_each_set_of_copies():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(10, 8)), 3, axis=0) + 1e-4 * rng.normal(size=(30, 8))
    score = np.tile([0.1, 0.9, 0.5], 10)
    _, distance = by_diversity.semdedup(rows, 2, score)
    assert np.flatnonzero(distance >= 2 * 0.01).tolist() == list(range(1, 30, 3))


def test_k_center_covers_every_cluster():
    rng = np.random.default_rng(1)
    rows = np.repeat(np.eye(5), 20, axis=0) + 0.01 * rng.normal(size=(100, 5))
    assert set(by_diversity.k_center(rows, 5) // 20) == set(range(5))


def test_invalid_arguments_are_rejected():
    rows = np.ones((3, 2))
    for m in (0, 4):
        for method in (by_diversity.k_center, by_diversity.herding):
            with pytest.raises(UserError, match="expected 1 <= size <= 3"):
                method(rows, m)
    with pytest.raises(UserError, match="n_clusters is 4, expected 1 to 3"):
        by_diversity.semdedup(rows, 4)
    with pytest.raises(UserError, match="expected one per embedding"):
        by_diversity.semdedup(rows, 1, [1.0])
    with pytest.raises(UserError, match="all zeros"):
        by_diversity.k_center(np.zeros((2, 2)))
