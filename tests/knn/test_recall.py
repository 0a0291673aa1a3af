"""Recall is counted by distance, its interval covers the true value, and nprobe is no larger than needed."""

import numpy as np

from d2prune.knn.recall import NEVER, brute_force, choose_nprobe, measure
from tests.knn.rows import pairs_of
from tests.oracles_knn import sorted_pairs


def test_brute_force_over_any_blocks():
    rows = np.random.default_rng(0).integers(0, 3, (70, 5)).astype(np.float32)
    expected = [p[:6] for p in sorted_pairs(rows[:9], rows, range(70))]
    for size in (1, 17, 70):
        blocks = ((rows[s : s + size], np.arange(s, min(s + size, 70))) for s in range(0, 70, size))
        assert pairs_of(brute_force(rows[:9].copy(), blocks, 6, threads=2)) == expected


def test_a_neighbour_tied_with_a_true_one_counts_as_found():
    true = np.array([[1, 2, 2], [1, 1, np.inf]], np.float32)
    assert measure(np.array([[1, 2, 2], [1, 1, np.inf]], np.float32), true).value == 1
    assert measure(np.array([[1, 2, 3], [1, np.inf, np.inf]], np.float32), true).value == 3 / 5


def test_the_interval_covers_the_true_recall_in_about_95_of_100_samples():
    rng = np.random.default_rng(0)
    true = np.zeros((200, 5), np.float32)
    covered = 0
    for _ in range(300):
        # Neighbours of one query are found together: a plain binomial interval is too narrow, and
        # covers about 80 %.
        good = rng.random(200) < 0.9
        found = np.where(good[:, None], 0, 1).astype(np.float32) * np.ones((1, 5), np.float32)
        recall = measure(found, true)
        covered += recall.low <= 0.9 <= recall.high
    assert 0.91 <= covered / 300 <= 0.99


def test_nprobe_is_the_smallest_that_reaches_the_target():
    rng = np.random.default_rng(0)
    meets = rng.integers(1, 11, (2000, 4))
    exists = np.ones(meets.shape, bool)
    assert choose_nprobe(meets, exists, 20, 0.85) == 9
    assert choose_nprobe(meets, exists, 20, 1.0) == 10
    assert choose_nprobe(meets, exists, 5, 0.85) is None
    assert choose_nprobe(np.full((5, 2), NEVER), np.zeros((5, 2), bool), 5, 0.95) == 1
    exists[:, 1:] = False
    meets[:, 1:] = NEVER
    assert choose_nprobe(meets, exists, 20, 1.0) == 10
