"""Centroids and lists depend on rows and seed alone; ties go to the lower list."""

from itertools import pairwise

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.knn import quantiser
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from tests.knn.rows import pairs_of
from tests.oracles_knn import sorted_pairs


@pytest.mark.parametrize(
    ("n_rows", "nlist"),
    [
        (1, 1),
        (4, 4),
        (99_999, 949),
        (100_000, 1_000),
        (1_000_000, 10_000),
        (12_800_000, 54_719),
        (128_000_000, 253_984),
        (12_800_000_000, 1_048_576),
    ],
)
def test_default_nlist(n_rows, nlist):
    assert default_nlist(n_rows) == nlist


def test_the_sample_is_seeded_distinct_and_ascending():
    sample = training_sample(10_000, 20, seed=3)
    assert len(sample) == 20 * quantiser.TRAINING_ROWS_PER_LIST
    assert (np.diff(sample) > 0).all()
    assert (sample == training_sample(10_000, 20, seed=3)).all()
    assert (sample != training_sample(10_000, 20, seed=4)).any()


def test_lists_are_ordered_by_distance_then_number():
    rng = np.random.default_rng(0)
    centroids = rng.integers(0, 3, (30, 4)).astype(np.float32)
    rows = rng.integers(0, 3, (40, 4)).astype(np.float32)
    assert pairs_of(Quantiser(centroids).nearest(rows, 7)) == [
        p[:7] for p in sorted_pairs(rows, centroids, range(30))
    ]


def test_an_assignment_does_not_depend_on_its_batch():
    rng = np.random.default_rng(0)
    rows, centroids = (
        rng.normal(size=(200, 32)).astype(np.float32),
        rng.normal(size=(50, 32)).astype(np.float32),
    )
    whole = Quantiser(centroids).nearest(rows, 5, threads=2).positions
    for size in (1, 13, 64):
        parts = [
            Quantiser(centroids).nearest(rows[s : s + size].copy(), 5).positions for s in range(0, 200, size)
        ]
        assert (np.concatenate(parts) == whole).all()


def test_training_gives_the_same_bits_on_any_number_of_threads():
    rows = np.random.default_rng(0).normal(size=(3000, 24)).astype(np.float32)
    one = train(rows, 40, seed=1)
    assert one.tobytes() == train(rows, 40, seed=1, threads=3).tobytes()
    assert one.tobytes() != train(rows, 40, seed=2).tobytes()


def test_an_iteration_averages_the_rows_nearest_to_each_centroid():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 6)).astype(np.float32)
    first = np.sort(np.random.default_rng(5).choice(300, 8, replace=False))
    labels = ((rows[:, None].astype(float) - rows[first]) ** 2).sum(2).argmin(1)
    expected = np.stack([rows[labels == c].astype(float).mean(0) for c in range(8)])
    np.testing.assert_allclose(train(rows, 8, seed=5, n_iterations=1), expected, rtol=1e-5, atol=1e-6)


def test_every_iteration_brings_centroids_nearer():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(12, 10)) * 20
    rows = (means[np.arange(600) % 12] + rng.normal(size=(600, 10))).astype(np.float32)
    costs = [
        Quantiser(train(rows, 24, 0, n)).nearest(rows, 1).sq_distances.mean(dtype=float) for n in range(5)
    ]
    assert all(later <= earlier for earlier, later in pairwise(costs))
    assert costs[-1] < costs[0] / 1.5


def test_identical_rows_give_finite_centroids_and_one_home_list():
    centroids = train(np.ones((50, 3), np.float32), 5, seed=0)
    assert np.isfinite(centroids).all()
    assert set(Quantiser(centroids).nearest(np.ones((4, 3), np.float32), 1).positions.ravel()) == {0}


def test_fewer_rows_than_lists_is_refused():
    with pytest.raises(UserError, match="nlist 5: found 4 rows"):
        train(np.ones((4, 3), np.float32), 5, seed=0)
