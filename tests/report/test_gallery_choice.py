import numpy as np

from d2prune.report import gallery_choice


def test_spread_takes_one_per_cluster_in_turn_and_is_deterministic():
    label = np.array([0] * 50 + [1] * 3 + [2] * 2)
    chosen = gallery_choice.spread_over_clusters(np.arange(55), label, 6, seed=0)
    assert sorted(label[chosen].tolist()) == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(chosen, gallery_choice.spread_over_clusters(np.arange(55), label, 6, seed=0))
    assert len(set(chosen.tolist())) == 6


def test_dense_and_sparse_rows_are_kept_and_from_the_outer_tenths():
    support = np.arange(100.0)
    kept = np.arange(100) % 3 == 0
    dense, sparse = gallery_choice.dense_and_sparse(support, kept)
    assert kept[dense].all()
    assert kept[sparse].all()
    assert support[dense].min() >= 89
    assert support[sparse].max() <= 10


def test_dense_and_sparse_fall_back_to_the_extremes_of_the_kept_rows():
    dense, sparse = gallery_choice.dense_and_sparse(
        np.arange(100.0), (np.arange(100) > 40) & (np.arange(100) < 60)
    )
    assert dense.tolist() == [59]
    assert sparse.tolist() == [41]
    assert not len(gallery_choice.dense_and_sparse(np.arange(9.0), np.zeros(9, bool))[0])


def test_best_candidates_come_first_each_suppressor_once():
    candidate = np.array([True, True, True, False, True])
    score = np.array([0.9, 0.8, 0.7, 1.0, 0.8])
    suppressor = np.array([5, 5, 6, 7, 8])
    assert gallery_choice.best_per_suppressor(candidate, score, suppressor, 9).tolist() == [0, 4, 2, 1]
    assert gallery_choice.best_per_suppressor(candidate, score, suppressor, 1).tolist() == [0]
    assert not len(gallery_choice.best_per_suppressor(~candidate[:0], score[:0], suppressor[:0], 3))


def test_the_closest_are_the_last_kept_and_the_first_dropped_by_margin():
    rng = np.random.default_rng(0)
    margin = rng.normal(size=60).round(1)
    kept = margin >= 0
    margin[::7] = np.nan
    found = gallery_choice.closest(margin, kept, 5)
    rows = [row for row in range(60) if not np.isnan(margin[row])]
    last = sorted((row for row in rows if kept[row]), key=lambda row: (margin[row], row))[:5]
    first = sorted((row for row in rows if not kept[row]), key=lambda row: (-margin[row], row))[:5]
    assert found.tolist() == [*last[::-1], *first]
    assert not len(gallery_choice.closest(np.full(3, np.nan), np.ones(3, bool), 5))
