"""The word list: matching as WordNet's rules for nouns say, and its file."""

import pytest

from d2prune.embed.filters import Filters
from d2prune.embed.word_file import hash_words, read_words
from d2prune.embed.word_list import contains_word
from d2prune.errors import UserError
from d2prune.inputs.rejects import FILTERED_NO_WORD, SampleRejected


@pytest.mark.parametrize(
    ("word", "listed"),
    [
        ("dog", "dog"),
        ("DOGS", "dog"),
        ("buses", "bus"),
        ("wolves", "wolf"),
        ("boxes", "box"),
        ("quizzes", "quizz"),
        ("churches", "church"),
        ("dishes", "dish"),
        ("firemen", "fireman"),
        ("ponies", "pony"),
        ("ice-cream", "ice-cream"),
    ],
)
def test_words_and_plurals_match(word, listed):
    assert contains_word(f"a {word}\tthere", frozenset([listed]))


@pytest.mark.parametrize(
    ("caption", "listed"),
    [
        ("a dog, there", "dog"),
        ("glass", "glas"),
        ("hotdog", "dog"),
        ("mice", "mouse"),
        ("dog", "dogs"),
        ("", "a"),
    ],
)
def test_other_words_do_not(caption, listed):
    assert not contains_word(caption, frozenset([listed]))


def test_filter_needs_one_word():
    filters = Filters(words="0")
    filters.check_caption("a dog", frozenset(["dog"]))
    with pytest.raises(SampleRejected, match=r"none of 1 words of filter\.words") as error:
        filters.check_caption("a cat", frozenset(["dog"]))
    assert error.value.reason == FILTERED_NO_WORD


@pytest.mark.parametrize(
    ("data", "words"), [(b"Dog\n\n cat \r\n", {"dog", "cat"}), ("\ufeffÉcole".encode(), {"école"})]
)
def test_file_is_read(tmp_path, data, words):
    path = tmp_path / "words.txt"
    path.write_bytes(data)
    assert read_words(str(path), hash_words(str(path))) == words
    assert read_words(None, None) == frozenset() and hash_words(None) is None


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, "not found; expected a text file in UTF-8"),
        (b"", "found no word"),
        (b"\n \n", "found no word"),
        (b"dog\nhot dog\n", "line 2: found 2 words"),
        (b"\xff\xfe", "can't decode byte 0xff"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, data, line):
    path = tmp_path / "words.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=line) as error:
        read_words(str(path), hash_words(str(path)))
    assert "\n" not in str(error.value) and str(error.value).startswith("filter.words: ")


def test_changed_file_is_one_line(tmp_path):
    (tmp_path / "words.txt").write_text("dog")
    with pytest.raises(UserError, match="changed during the run; run again"):
        read_words(str(tmp_path / "words.txt"), "0" * 64)
