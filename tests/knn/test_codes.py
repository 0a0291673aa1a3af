"""Codes are a function of the row; their products are exact, whoever multiplies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn import codes
from d2prune.knn.codes import encode, multiply_codes


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 2_100), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_products_are_exact_by_every_way(n_a, n_b, n_dims, seed):
    rng = np.random.default_rng(seed)
    # The largest codes have the largest sums.
    values = [-127, 127] if seed % 2 else np.arange(-127, 128)
    a, b = (rng.choice(values, (n, n_dims)).astype(np.int8) for n in (n_a, n_b))
    a[: n_a // 2] = b[:1]
    truth = a.astype(np.int64) @ b.T.astype(np.int64)
    assert (multiply_codes(a, b) == truth).all()
    assert (codes._multiply_as_floats(a, b) == truth).all()


def test_a_library_whose_sums_saturate_is_not_used(monkeypatch):
    exact = codes._multiply_int8
    monkeypatch.setattr(codes, "_multiply_int8", lambda a, b: np.clip(exact(a, b), -32_768, 32_767))
    assert not codes._int8_is_exact.__wrapped__()


@pytest.mark.parametrize("n_dims", [1, 3, 64, 100, 512, 1_536])
def test_codes_round_coordinates_to_255_levels(n_dims):
    rows = np.random.default_rng(0).normal(size=(50, n_dims)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    step = 8 / (127 * np.sqrt(n_dims))
    off = np.abs(encode(rows) * step - rows)
    assert (off[np.abs(rows) < 126 * step] <= step * 0.501).all()
    assert (encode(rows[::-1].copy())[::-1] == encode(rows)).all()
    assert (encode(np.full((1, n_dims), 1e9, np.float32)) == 127).all()
