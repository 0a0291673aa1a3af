"""The canonical distance equals the documented sum bit for bit, and is symmetric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn.distances import pair_sq_distances, sq_distance
from tests.oracles_knn import canonical_sq_distance


@pytest.mark.parametrize("n_dims", [1, 2, 15, 16, 17, 31, 48, 100, 512])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e10])
def test_equals_the_documented_order_of_operations(n_dims, scale):
    rng = np.random.default_rng(n_dims)
    a, b = (rng.normal(size=(2, n_dims)) * scale * 10.0 ** rng.integers(-5, 5, (2, n_dims))).astype(
        np.float32
    )
    assert sq_distance(a, b) == canonical_sq_distance(a, b)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_symmetric_bit_for_bit(n_dims, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, n_dims)).astype(np.float32)
    assert sq_distance(a, b) == sq_distance(b, a)
    assert sq_distance(a, a) == 0


def test_a_pair_does_not_depend_on_its_batch():
    rows = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32)
    i, j = np.random.default_rng(1).integers(0, 50, (2, 200))
    together = pair_sq_distances(rows, i, rows, j)
    alone = [
        pair_sq_distances(rows[a : a + 1].copy(), np.zeros(1, int), rows, np.array([b]))[0]
        for a, b in zip(i, j, strict=True)
    ]
    assert together.tolist() == alone
