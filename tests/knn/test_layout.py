"""The layout of the map: deterministic, of any size, and truer to the neighbours than two principal axes."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.map_layout import neighbours_kept
from d2prune.errors import UserError
from d2prune.knn import exact_layout, graph_layout, layout
from d2prune.knn.features import unit_rows
from d2prune.knn.top_k import NO_POSITION


def points(n, seed=0, dims=24, centres=8):
    """Unit rows around some centres."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dims))
    return unit_rows((middle[rng.integers(centres, size=n)] + 0.5 * rng.normal(size=(n, dims))).astype("f4"))


def place(points_ND, **options):
    short = layout.shorten(points_ND, layout.principal_axes(points_ND, 0))
    return layout.layout(short, 0, **options)


@pytest.mark.parametrize("exact_below", [0, 10_000])
def test_a_layout_is_deterministic_and_keeps_more_neighbours_than_two_principal_axes(
    monkeypatch, exact_below
):
    monkeypatch.setattr(graph_layout, "EXACT_BELOW", exact_below)
    monkeypatch.setattr(graph_layout, "_EARLY", 30)
    monkeypatch.setattr(graph_layout, "_LATE", 30)
    monkeypatch.setattr(exact_layout, "_THREADS_FROM", 100)
    cloud = points(300, centres=30)
    steps = []
    placed = place(cloud, report=lambda step, done: steps.append(done))
    assert placed.dtype == np.uint16 and placed.shape == (300, 2)
    np.testing.assert_array_equal(placed, place(cloud, threads=2 if exact_below else 1))
    assert steps == sorted(steps) and steps[-1] >= 0.9
    centred = cloud - cloud.mean(axis=0)
    flat = graph_layout.to_grid((centred @ layout.principal_axes(centred, 0, 2)).astype(float))
    assert neighbours_kept(cloud, placed) > 1.5 * neighbours_kept(cloud, flat)


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 6, 16, 17])
def test_pools_of_any_size_have_a_layout(n):
    placed = place(points(n)) if n else layout.layout(np.zeros((0, 1), np.float32), 0)
    assert placed.shape == (n, 2)


def test_missing_neighbours_are_left_out(monkeypatch):
    search = layout.knn_graph_report

    def lack(*arguments, **options):
        found = search(*arguments, **options)
        found.neighbours[::3, -2:], found.sq_distances[::3, -2:] = NO_POSITION, np.inf
        return found

    monkeypatch.setattr(layout, "knn_graph_report", lack)
    assert place(points(40)).shape == (40, 2)


def test_equal_points_and_points_off_the_axes_have_a_place():
    equal = np.repeat(points(1), 40, axis=0)
    assert np.isfinite(place(equal)).all()
    # No two have a component in common.
    axes = layout.principal_axes(np.eye(200, dtype=np.float32)[:100], 0)
    short = layout.shorten(np.eye(200, dtype=np.float32), axes)
    np.testing.assert_allclose((short**2).sum(axis=1), 1, atol=1e-5)


def naive_slope(placed_N2, pairs, exaggeration=1.0):
    """The gradient of t-SNE from its definition, in float64; edges of weight 1 in both directions."""
    n = len(placed_N2)
    weight_NN = np.zeros((n, n))
    for a, b in pairs:
        weight_NN[a, b] += 1
        weight_NN[b, a] += 1
    weight_NN /= weight_NN.sum()
    gap_NN2 = placed_N2[:, None] - placed_N2
    near_NN = 1 / (1 + (gap_NN2**2).sum(axis=-1))
    np.fill_diagonal(near_NN, 0)
    share_NN = near_NN / near_NN.sum()
    return 4 * (((weight_NN - share_NN) * near_NN)[:, :, None] * gap_NN2).sum(axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_attraction_and_repulsion_are_those_of_the_definition(n, seed):
    rng = np.random.default_rng(seed)
    placed = rng.normal(size=(n, 2)) * rng.choice([1e-4, 1.0, 30.0])
    pairs = [(a, b) for a, b in rng.integers(0, n, (3 * n, 2)) if a != b] or [(0, 1)]
    at_2N = np.ascontiguousarray(placed.T, np.float32)
    from_E, to_E = np.array(pairs).T
    pull_2N, push_2N, sum_N = np.empty_like(at_2N), np.empty_like(at_2N), np.empty(n, np.float32)
    exact_layout._pull(at_2N, *exact_layout._list_ends(n, from_E, to_E), pull_2N)
    pull_2N /= 2 * len(pairs)
    exact_layout._push_all(at_2N, push_2N, sum_N, 1)
    slope_N2 = 4 * (pull_2N - push_2N / sum_N.sum()).T
    expected = naive_slope(placed, pairs)
    # Where the two nearly cancel, the error is one of the larger, not of the difference; float32 loses
    # four digits of the distance of two points that are close together and far from the origin.
    scale = np.abs(4 * pull_2N).max() + np.abs(expected).max()
    np.testing.assert_allclose(slope_N2, expected, rtol=1e-3, atol=1e-3 * scale)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=20))
def test_a_grid_has_one_scale_and_stays_within_its_side(rows):
    grid = graph_layout.to_grid(np.array(rows, float))
    extent = (grid.max(axis=0) - grid.min(axis=0).astype(int)).max()
    assert extent in (0, graph_layout.SIDE) or np.ptp(np.array(rows), axis=0).max() == 0


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    assert place(points(10)).shape == (10, 2)
    monkeypatch.setattr(graph_layout, "EXACT_BELOW", 10)
    with pytest.raises(UserError) as raised:
        place(points(10))
    assert str(raised.value) == "map: needs openTSNE, which is not installed; pip install 'd2prune[map]'"
