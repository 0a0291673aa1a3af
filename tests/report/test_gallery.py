import numpy as np
import pytest

from d2prune.report import gallery


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  cat\n\ton a\x00 mat ", "a cat on a mat"),
        ("", ""),
        ("x" * 10_000, "x" * 159 + "\u2026"),
        ("word " * 2_000, ("word " * 40)[:159].rstrip() + "\u2026"),
        (" " * 5_000 + "late", "\u2026"),
    ],
)
def test_shorten(text, expected):
    assert gallery.shorten(text) == expected
    assert len(gallery.shorten(text)) <= gallery.CAPTION_LIMIT


def test_spread_takes_turns_among_clusters_and_repeats_itself():
    label = np.array([0] * 50 + [1] * 3 + [2] * 2)
    chosen = gallery.spread(np.arange(55), label, 6, seed=0)
    assert sorted(label[chosen].tolist()) == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(chosen, gallery.spread(np.arange(55), label, 6, seed=0))
    assert len(set(chosen.tolist())) == 6


def test_dense_and_sparse_are_kept_and_at_the_ends():
    crowding = np.arange(100.0)
    kept = np.arange(100) % 3 == 0
    dense, sparse = gallery.dense_and_sparse(crowding, kept)
    assert kept[dense].all()
    assert kept[sparse].all()
    assert crowding[dense].min() >= 89
    assert crowding[sparse].max() <= 10


def test_dense_and_sparse_fall_back_to_the_ends_of_the_kept():
    dense, sparse = gallery.dense_and_sparse(np.arange(100.0), (np.arange(100) > 40) & (np.arange(100) < 60))
    assert dense.tolist() == [59]
    assert sparse.tolist() == [41]
    assert not len(gallery.dense_and_sparse(np.arange(9.0), np.zeros(9, bool))[0])


def test_closest_pairs_undoes_the_sender_score():
    sq_distance = np.array([0.5, 0.01, 0.2])
    score = np.array([9.0, 0.3, 2.0])
    assert gallery.closest_pairs(np.exp(-sq_distance) * score, score).tolist() == [1, 2, 0]


def test_pairs_prefer_kept_neighbours_then_likeness_each_neighbour_once():
    suppressor = np.array([5, 5, 6, 7])
    similarity = np.array([0.9, 0.99, 0.8, 1.0])
    kept = np.array([True, True, True, False])
    assert gallery.pick_pairs(suppressor, similarity, kept, 4).tolist() == [1, 2, 3, 0]
    assert gallery.pick_pairs(suppressor, similarity, kept, 1).tolist() == [1]


def test_telling_words_tell_clusters_apart():
    captions = ["a red apple", "red apple pie", "the blue sea", "blue sea waves", "<b>blue</b>"]
    words = gallery.telling_words(captions, np.array([0, 0, 1, 1, 1]))
    assert words[0].startswith("apple, red")
    assert words[1].startswith("blue, sea")
