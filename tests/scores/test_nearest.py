"""Clusters near a target set, against a plain argmax; blocks of centroids and of rows change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.scores import nearest


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_nearest_centroid_is_the_first_of_the_largest_products(n, m, d, seed):
    rng = np.random.default_rng(seed)
    # Small integers: exact products, and many that are equal.
    rows, centroids = (rng.integers(-3, 4, (count, d)).astype(np.float32) for count in (n, m))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_ROWS", 7)
        patch.setattr(nearest, "_COLUMNS", 5)
        found = nearest.find_nearest(rows, centroids, threads=2)
    assert found.tolist() == np.argmax(rows @ centroids.T, axis=1).tolist()


def test_near_target_is_one_for_the_clusters_of_the_target():
    centroids = np.array([[1, 0], [0, 1], [0, 0.5], [-1, -1]], np.float32)
    rows = np.array([[0.9, 0.1], [0.1, 0.9], [-1, 0], [0.7, 0.7]], np.float32)
    assert nearest.near_target(rows, centroids, np.array([1, 3]), threads=1).tolist() == [0, 1, 1, 0]
