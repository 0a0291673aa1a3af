"""Captions, series and unsuitable words of the clip art."""

from pathlib import Path

import pytest

from tools.clipart import ImageRecord, caption, is_unfit, title_stem


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
def test_unsuitable_words_match_as_complete_words(words, expected):
    assert is_unfit(ImageRecord(Path(), words[0], words[1:], "openclipart-png:a/b", "")) is expected


def test_unsuitable_words_are_found_in_the_path():
    assert is_unfit(ImageRecord(Path(), "Untitled", (), "openclipart-png:signs/black_sun_03", ""))


def test_caption_has_no_keyword_that_the_title_contains():
    record = ImageRecord(Path(), "Red Apple", ("apples", "fruit", "fruits", "food"), "", "")
    assert caption(record) == "Red Apple, fruit, food"
    assert caption(record, max_keywords=1) == "Red Apple, fruit"


def test_title_stem_is_equal_within_a_series():
    assert title_stem("Jigsaw red_10") == title_stem("jigsaw RED 2") == "jigsaw red"
