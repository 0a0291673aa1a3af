"""Content groups of the clip art, and its split into the bundled pool and the training set."""

from pathlib import Path

import numpy as np
import pytest

from tools.clipart import ImageRecord
from tools.groups import content_groups, near_copies, pool_and_training


def record(path, title, keywords=()):
    return ImageRecord(Path(path), title, keywords, f"openclipart-png:{path}", "")


def distinct_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, 16), dtype=np.uint8)


def test_equal_titles_numbered_copies_and_copies_share_a_group():
    records = [
        record("animals/cat_01", "Cat"),
        record("food/cat", "CAT (2)"),
        record("animals/cat_02", "Sleeping"),
        record("flags/france", "France"),
        record("flags/mali", "Mali"),
        record("tools/saw", "Saw"),
    ]
    hashes = distinct_hashes(6)
    hashes[5] = hashes[4]
    assert content_groups(records, hashes).tolist() == [0, 0, 0, 3, 4, 4]


def test_members_of_a_series_with_different_titles_are_different_groups():
    records = [record(f"signs_and_symbols/flags/{name}", name) for name in ("france", "mali", "chad")]
    assert content_groups(records, distinct_hashes(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_pool_and_training_set_share_no_group_and_no_near_copy(seed):
    rng = np.random.default_rng(seed)
    records = [record(f"a/{row:04d}", f"title {row}") for row in range(600)]
    groups = np.repeat(np.arange(300), 2) * 2
    hashes = distinct_hashes(600, seed)
    copied = rng.permutation(600)[:120]
    hashes[copied[:60]] = hashes[copied[60:]]
    hashes[copied[:60], 0] ^= 1
    pool, training = pool_and_training(records, hashes, groups, 100, seed)
    assert len(pool) == 100
    assert not set(groups[pool]) & set(groups[training])
    assert len(near_copies(hashes[training], hashes[pool])) == 0
    assert len(training) >= 400


def test_pool_takes_nothing_from_huge_groups_and_a_limited_number_from_large_ones():
    records = [record(f"a/{row}", "t") for row in range(500)]
    groups = np.array([0] * 300 + [300] * 100 + list(range(400, 500)))
    pool, training = pool_and_training(records, distinct_hashes(500), groups, 140, 0)
    assert np.bincount(groups[pool], minlength=500)[[0, 300]].tolist() == [0, 40]
    assert set(training) >= set(range(300))
