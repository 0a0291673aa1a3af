"""Unit float16 rows: exact, independent of their batch, and unchanged when they are imported again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d2prune.knn.unit_norm import cosines, sq_norms, unit_halves


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 37.0])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 64])
def test_rows_are_divided_by_their_norm_and_rounded_once(dtype, scale, width):
    rows = (scale * np.random.default_rng(width).standard_normal((50, width))).astype(dtype)
    halves, good = unit_halves(rows)
    wide = rows.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    assert good.all() and halves.dtype == np.float16
    np.testing.assert_allclose(halves.astype(np.float64), wide / norm, rtol=2**-10, atol=1e-7)
    # Except for one unit in the last place of float16, and rows whose norm is 1 within float16 precision.
    off = np.abs(norm[:, 0] ** 2 - 1) > 2**-10
    expected = (wide / norm).astype(np.float32).astype(np.float16)
    assert (halves[off] == expected[off]).mean() > 0.999


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_unit_rows_are_only_rounded_and_scaling_is_idempotent(dtype):
    rows = np.random.default_rng(0).standard_normal((500, 768))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)
    halves, good = unit_halves(rows)
    assert good.all() and halves.tobytes() == rows.astype(np.float16).tobytes()
    scaled, _ = unit_halves(rows.astype(np.float64) * 12.5)
    assert unit_halves(scaled)[0].tobytes() == scaled.tobytes()


@settings(max_examples=60, deadline=None)
@given(rows=arrays(np.float16, st.tuples(st.integers(1, 6), st.integers(1, 11))), data=st.data())
def test_a_row_does_not_depend_on_its_batch(rows, data):
    halves, good = unit_halves(rows)
    order = data.draw(st.permutations(range(len(rows))))
    again, again_good = unit_halves(rows[list(order)])
    assert again.tobytes() == halves[list(order)].tobytes() and list(again_good) == list(good[list(order)])
    finite = np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1)
    assert list(good) == list(finite)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_that_cannot_be_normalised_are_flagged(value, dtype):
    rows = np.ones((3, 4), dtype)
    rows[1] = value
    assert list(unit_halves(rows)[1]) == [True, False, True]


def test_norms_and_cosines_equal_float64_sums():
    rng = np.random.default_rng(3)
    left, right = (unit_halves(rng.standard_normal((20, 13)))[0] for _ in range(2))
    wide = (left.astype(np.float64) * right.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(cosines(left, right), wide, rtol=1e-6)
    np.testing.assert_allclose(sq_norms(left), (left.astype(np.float64) ** 2).sum(axis=1), rtol=1e-12)
    assert sq_norms(left).tobytes() == sq_norms(left.astype(np.float32)).tobytes()
