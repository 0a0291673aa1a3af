"""The layout of the map: deterministic, of any size, and truer to the neighbours than two principal axes."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.map_layout import neighbours_kept
from d2prune.errors import UserError
from d2prune.knn import layout
from d2prune.knn.block_search import NO_POSITION
from d2prune.knn.features import unit_rows


def points(n, seed=0, dims=24, centres=8):
    """Unit rows around some centres."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centres, dims))
    return unit_rows((middle[rng.integers(centres, size=n)] + 0.5 * rng.normal(size=(n, dims))).astype("f4"))


def place(points_ND, **options):
    short = layout.shorten(points_ND, layout.principal_axes(points_ND, 0))
    return layout.layout(short, 0, **options)


def test_a_layout_is_deterministic_and_keeps_more_neighbours_than_two_principal_axes(monkeypatch):
    monkeypatch.setattr(layout, "_EARLY", 100)
    monkeypatch.setattr(layout, "_LATE", 150)
    cloud = points(300, centres=30)
    steps = []
    placed = place(cloud, report=lambda step, done: steps.append(done))
    assert placed.dtype == np.uint16 and placed.shape == (300, 2)
    np.testing.assert_array_equal(placed, place(cloud, threads=2))
    assert steps == sorted(steps) and steps[-1] == 1.0
    centred = cloud - cloud.mean(axis=0)
    flat = layout.to_grid((centred @ layout.principal_axes(centred, 0, 2)).astype(float))
    assert neighbours_kept(cloud, placed) > 1.5 * neighbours_kept(cloud, flat)


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 6, 16, 17])
def test_pools_of_any_size_have_a_layout(n, monkeypatch):
    monkeypatch.setattr(layout, "_EARLY", 5)
    monkeypatch.setattr(layout, "_LATE", 5)
    placed = place(points(n)) if n else layout.layout(np.zeros((0, 1), np.float32), 0)
    assert placed.shape == (n, 2)


def test_missing_neighbours_are_left_out(monkeypatch):
    monkeypatch.setattr(layout, "_EARLY", 5)
    monkeypatch.setattr(layout, "_LATE", 5)
    search = layout.knn_graph_report

    def lack(*arguments, **options):
        found = search(*arguments, **options)
        found.neighbours[::3, -2:], found.sq_distances[::3, -2:] = NO_POSITION, np.inf
        return found

    monkeypatch.setattr(layout, "knn_graph_report", lack)
    assert place(points(40)).shape == (40, 2)


def test_equal_points_and_points_off_the_axes_have_a_place(monkeypatch):
    monkeypatch.setattr(layout, "_EARLY", 5)
    monkeypatch.setattr(layout, "_LATE", 5)
    equal = np.repeat(points(1), 40, axis=0)
    assert np.isfinite(place(equal)).all()
    # No two have a component in common.
    axes = layout.principal_axes(np.eye(200, dtype=np.float32)[:100], 0)
    short = layout.shorten(np.eye(200, dtype=np.float32), axes)
    np.testing.assert_allclose((short**2).sum(axis=1), 1, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=20))
def test_a_grid_has_one_scale_and_stays_within_its_side(rows):
    grid = layout.to_grid(np.array(rows, float))
    extent = (grid.max(axis=0) - grid.min(axis=0).astype(int)).max()
    assert extent in (0, layout.SIDE) or np.ptp(np.array(rows), axis=0).max() == 0


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(UserError) as raised:
        place(points(10))
    assert str(raised.value) == "map: needs openTSNE, which is not installed; pip install 'd2prune[map]'"
