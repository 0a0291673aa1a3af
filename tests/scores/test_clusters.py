"""Prototype distances equal a naive search over the centroids of the same k-means."""

import numpy as np
import pytest

import d2prune
from d2prune.errors import UserError
from d2prune.knn.features import unit_rows
from d2prune.knn.quantiser import train


def naive_nearest(rows, centroids):
    """Squared distances in float64: up to 4 dimensions they round to the canonical float32."""
    out = []
    for row in rows.astype(np.float64):
        squares = []
        for centroid in centroids.astype(np.float64):
            total = 0.0
            for a, b in zip(row, centroid, strict=True):
                total += (a - b) * (a - b)
            squares.append(np.float32(total))
        out.append(min(squares))
    return np.array(out, np.float32)


def test_score_is_the_distance_to_the_nearest_centroid():
    embeddings = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    rows = unit_rows(embeddings)
    for n_clusters, seed in ((1, 0), (7, 0), (7, 3)):
        got = d2prune.scores.prototypes(embeddings, n_clusters, seed=seed)
        assert got.dtype == np.float32
        assert (got == naive_nearest(rows, train(rows, n_clusters, seed, 20))).all()
    assert (got == d2prune.scores.prototypes(embeddings, 7, seed=3, threads=1)).all()


def test_typical_samples_score_low():
    rng = np.random.default_rng(1)
    blobs = np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 20, axis=0) + 0.05 * rng.normal(size=(40, 3))
    odd = np.array([[0.2, 0.1, 1.0]])
    got = d2prune.scores.prototypes(np.concatenate([blobs, odd]), 2, seed=1)
    assert got.argmax() == 40


def test_one_sample_and_equal_samples():
    one = np.ones((1, 3), np.float32)
    assert d2prune.scores.prototypes(one, 1)[0] < 1e-12
    assert (d2prune.scores.prototypes(np.ones((5, 3)), 2) < 1e-12).all()
    with pytest.raises(UserError, match="expected 1 to 1"):
        d2prune.scores.prototypes(one, 2)
