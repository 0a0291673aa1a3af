"""Partitions of lists are balanced and keep near lists together."""

import numpy as np
import pytest

from d2prune.knn.list_partitions import group_lists


@pytest.mark.parametrize("n_partitions", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("seed", range(3))
def test_every_partition_has_lists_and_about_its_share_of_rows(n_partitions, seed):
    rng = np.random.default_rng(seed)
    centroids, sizes = rng.normal(size=(40, 8)).astype(np.float32), rng.integers(0, 50, 40)
    partition = group_lists(centroids, sizes, n_partitions)
    held = np.bincount(partition, weights=sizes + 1, minlength=n_partitions)
    assert (np.bincount(partition, minlength=n_partitions) > 0).all()
    share = (sizes + 1).sum() / n_partitions
    assert held.max() <= share + (sizes.max() + 1) * np.ceil(np.log2(n_partitions) + 1)


def test_near_lists_stay_together():
    rng = np.random.default_rng(0)
    blobs = np.repeat(10 * rng.normal(size=(4, 4)), 5, axis=0) + 0.1 * rng.normal(size=(20, 4))
    partition = group_lists(blobs.astype(np.float32), np.full(20, 100), 4)
    assert all(len(set(partition[start : start + 5])) == 1 for start in range(0, 20, 5))


def test_identical_centroids_can_be_divided():
    partition = group_lists(np.ones((6, 3), np.float32), np.full(6, 10), 3)
    assert np.bincount(partition).tolist() == [2, 2, 2]
