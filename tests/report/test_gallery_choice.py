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


def test_closest_pairs_are_ordered_by_distance_not_by_score():
    sq_distance = np.array([0.5, 0.01, 0.2])
    score = np.array([9.0, 0.3, 2.0])
    assert gallery_choice.closest_pairs(np.exp(-sq_distance) * score, score).tolist() == [1, 2, 0]


def test_pairs_prefer_kept_suppressors_then_similarity_each_suppressor_once():
    suppressor = np.array([5, 5, 6, 7])
    similarity = np.array([0.9, 0.99, 0.8, 1.0])
    kept = np.array([True, True, True, False])
    assert gallery_choice.pick_pairs(suppressor, similarity, kept, 4).tolist() == [1, 2, 3, 0]
    assert gallery_choice.pick_pairs(suppressor, similarity, kept, 1).tolist() == [1]
