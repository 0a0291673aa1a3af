import numpy as np
import pytest

from d2prune.report.captions import CAPTION_LIMIT, distinctive_words, shorten


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
def test_shortened_text_is_one_line_within_the_limit(text, expected):
    assert shorten(text) == expected
    assert len(shorten(text)) <= CAPTION_LIMIT


def test_distinctive_words_differ_between_clusters():
    captions = ["a red apple", "red apple pie", "the blue sea", "blue sea waves", "<b>blue</b>"]
    words = distinctive_words(captions, np.array([0, 0, 1, 1, 1]))
    assert words[0].startswith("apple, red")
    assert words[1].startswith("blue, sea")
