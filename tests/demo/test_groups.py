"""Content groups of the clip art, and its split into the bundled pool and the training set."""

from pathlib import Path

import numpy as np
import pytest

from tools.clipart import Picture, unfit
from tools.groups import content_groups, near_copies, pool_and_training


def picture(path, title, keywords=()):
    return Picture(Path(path), title, keywords, f"openclipart-png:{path}", "")


def distinct_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, 16), dtype=np.uint8)


def test_same_title_numbered_titles_and_copies_share_a_group():
    pictures = [
        picture("animals/cat_01", "Cat"),
        picture("food/cat", "CAT (2)"),
        picture("animals/cat_02", "Sleeping"),
        picture("flags/france", "France"),
        picture("flags/mali", "Mali"),
        picture("tools/saw", "Saw"),
    ]
    hashes = distinct_hashes(6)
    hashes[5] = hashes[4]
    assert content_groups(pictures, hashes).tolist() == [0, 0, 0, 3, 4, 4]


def test_members_of_a_series_with_different_titles_are_different_groups():
    pictures = [picture(f"signs_and_symbols/flags/{name}", name) for name in ("france", "mali", "chad")]
    assert content_groups(pictures, distinct_hashes(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_no_group_or_near_copy_is_in_both_pool_and_training_set(seed):
    rng = np.random.default_rng(seed)
    pictures = [picture(f"a/{row:04d}", f"title {row}") for row in range(600)]
    groups = np.repeat(np.arange(300), 2) * 2
    hashes = distinct_hashes(600, seed)
    copied = rng.permutation(600)[:120]
    hashes[copied[:60]] = hashes[copied[60:]]
    hashes[copied[:60], 0] ^= 1
    pool, training = pool_and_training(pictures, hashes, groups, 100, seed)
    assert len(pool) == 100
    assert not set(groups[pool]) & set(groups[training])
    assert len(near_copies(hashes[training], hashes[pool])) == 0
    assert len(training) >= 400


def test_largest_group_is_trained_on_and_large_groups_are_capped_in_the_pool():
    pictures = [picture(f"a/{row}", "t") for row in range(500)]
    groups = np.array([0] * 300 + [300] * 100 + list(range(400, 500)))
    pool, training = pool_and_training(pictures, distinct_hashes(500), groups, 140, 0)
    assert np.bincount(groups[pool], minlength=500)[[0, 300]].tolist() == [0, 40]
    assert set(training) >= set(range(300))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("Sunwheel", "symbol"), True),
        (("flag", "Schwarze Sonne"), True),
        (("Neo_Nazi sign",), True),
        (("statue", "nudes"), True),
        (("grapes", "glass", "class"), False),
        (("SS 1",), True),
        (("Cocktail", "Sussex", "Montenegro", "sunflower"), False),
    ],
)
def test_unfit_matches_complete_words(words, expected):
    assert unfit(picture("a/b", words[0], words[1:])) is expected


def test_unfit_matches_the_path():
    assert unfit(picture("signs/black_sun_03", "Untitled"))
