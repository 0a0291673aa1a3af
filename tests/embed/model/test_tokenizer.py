"""Token ids equal open_clip's for any caption, and hostile captions cost no more than long ones."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.embed.caption_limit import MAX_CHARACTERS, cut_caption
from d2prune.embed.model.byte_pairs import merge_pairs
from d2prune.embed.model.sources import import_open_clip
from d2prune.embed.model.tokenizer import CaptionTokenizer

RANDOM = random.Random(0)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_word(characters, length):
    return "".join(RANDOM.choice(characters) for _ in range(length))


HOSTILE = {
    "one letter": "a" * MAX_CHARACTERS,
    "random letters": random_word(LETTERS, MAX_CHARACTERS),
    "emoji": "\N{FACE WITH TEARS OF JOY}" * MAX_CHARACTERS,
    "random scripts": random_word([chr(code) for code in range(0x20, 0x3000)], MAX_CHARACTERS),
    "nested entities": "&" + "amp;" * (MAX_CHARACTERS // 4 - 1),
    "entities": "&eacute;&#x263A;&ampx" * (MAX_CHARACTERS // 32),
    "combining characters": "a" + "\u0316\u0301" * (MAX_CHARACTERS // 2 - 1),
    "spaces": "a" + " " * (MAX_CHARACTERS - 2) + "b",
    "controls": "a" + "\x00" * (MAX_CHARACTERS - 2) + "b",
    "wrong encoding": "caf\xc3\xa9 " * (MAX_CHARACTERS // 8),
    "escapes": "\x1b[1;" * (MAX_CHARACTERS // 4),
    "punctuation": "!?" * (MAX_CHARACTERS // 2),
    "sigmas": "\u03a3'" * (MAX_CHARACTERS // 2),
    "special tokens": "<start_of_text><end_of_text>" * 99,
}


@pytest.fixture(scope="module")
def library():
    """open_clip's own tokenizer, in its own code."""
    return import_open_clip().SimpleTokenizer()


@pytest.fixture(scope="module")
def bounded():
    open_clip = import_open_clip()
    return CaptionTokenizer(open_clip.SimpleTokenizer(), open_clip.SimpleTokenizer)


def with_fast_merging(library, monkeypatch):
    """Merge long words by `merge_pairs`, since open_clip takes seconds; the two are compared below."""
    bpe = library.bpe

    def merge(word):
        if len(word) <= 64:
            return bpe(word)
        return " ".join(merge_pairs([*word[:-1], word[-1] + "</w>"], library.bpe_ranks))

    monkeypatch.setattr(library, "bpe", merge)


def merge_as_open_clip(word, ranks):
    simple = import_open_clip().SimpleTokenizer
    tokenizer = simple.__new__(simple)
    tokenizer.cache, tokenizer.bpe_ranks = {}, ranks
    return tokenizer.bpe(word).split(" ")


def test_merging_equals_open_clips_for_any_table():
    """Tables that no training would give: a symbol made in several ways, and ranks in any order."""
    for seed in range(400):
        draw = random.Random(seed)
        symbols, merges = ["a", "b", "a</w>", "b</w>"], []
        for _ in range(draw.randrange(13)):
            left = draw.choice([symbol for symbol in symbols if "</w>" not in symbol])
            right = draw.choice(symbols)
            merges.append((left, right))
            symbols.append(left + right)
        draw.shuffle(merges)
        ranks = dict(zip(merges, range(len(merges)), strict=True))
        word = "".join(draw.choice("ab") for _ in range(draw.randrange(2, 40)))
        assert merge_pairs([*word[:-1], word[-1] + "</w>"], ranks) == merge_as_open_clip(word, ranks), seed


@pytest.mark.parametrize("length", [65, 300, 700])
def test_merging_equals_open_clips_for_its_vocabulary(library, length):
    for characters in (LETTERS, "ab", "haha", "\xf0\u0141\u013a\u0124"):
        word = random_word(characters, length)
        assert merge_pairs([*word[:-1], word[-1] + "</w>"], library.bpe_ranks) == library.bpe(word).split(" ")


FRAGMENTS = st.sampled_from(
    [
        "&amp;",
        "&amp;amp;lt;",
        "caf\xc3\xa9",
        "\xe2\u20ac\u2122",
        "<b>",
        "\n",
        "  ",
        "\u03a3",
        "\u0130",
        "a" * 90,
        "ha" * 50,
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAGMENTS | st.text(max_size=40), max_size=12).map("".join))
def test_tokens_equal_open_clips_for_any_text(library, bounded, caption):
    assert bounded([caption]).tolist() == library([caption]).tolist()


@pytest.mark.parametrize("kind", HOSTILE)
def test_tokens_equal_open_clips_for_hostile_captions(library, bounded, kind, monkeypatch):
    with_fast_merging(library, monkeypatch)
    assert bounded([HOSTILE[kind]]).tolist() == library([HOSTILE[kind]]).tolist()


@pytest.mark.parametrize(
    "caption",
    [
        "a dog " * 5_000,
        "one &amp;amp;amp; two " * 2_000 + "<b>",
        "&eacute;t&eacute; <br> " * 2_000,
        "a\n" + "dog \t" * 5_000,
        "a red" + " \n\u3000" * 20_000 + "square " * 80,
        "\u72ac" * 20_000,
        "caf\xc3\xa9 " * 5_000,
        "<start_of_text>" + "z" * 9_000,
    ],
    ids=range(8),
)
def test_captions_beyond_the_limit_keep_their_tokens(library, bounded, caption, monkeypatch):
    with_fast_merging(library, monkeypatch)
    assert len(caption) > MAX_CHARACTERS
    assert bounded([caption]).tolist() == library([caption]).tolist()


class CountingRanks(dict):
    """Ranks that count look-ups: the work of merging."""

    lookups = 0

    def get(self, *args):
        self.lookups += 1
        return super().get(*args)


@pytest.mark.parametrize("kind", HOSTILE)
def test_work_is_bounded_by_the_limit(kind):
    simple = import_open_clip().SimpleTokenizer
    tokenizer = simple()
    tokenizer.bpe_ranks = CountingRanks(tokenizer.bpe_ranks)
    cleaned, merged, clean, bpe = [], [], tokenizer.clean_fn, tokenizer.bpe
    tokenizer.clean_fn = lambda text: cleaned.append(len(text)) or clean(text)
    tokenizer.bpe = lambda word: merged.append(len(word)) or bpe(word)
    bounded = CaptionTokenizer(tokenizer, simple)
    # On a new line, where nothing of the first is in doubt.
    bounded([HOSTILE[kind] * 20])
    assert max(cleaned) <= MAX_CHARACTERS + 40
    assert max(merged, default=0) <= 64 and len(merged) <= tokenizer.context_length
    # A character has up to four bytes; each merge looks up the pairs at both ends and its own.
    assert tokenizer.bpe_ranks.lookups <= 4 * 4 * MAX_CHARACTERS + 64**2 * len(merged)


def test_any_tokenizer_gets_cut_captions():
    """HuggingFace's tokenizers are compiled, and take linear time."""
    lengths = []
    tokenizer = CaptionTokenizer(lambda texts: lengths.extend(map(len, texts)), int)
    tokenizer(["a" * 10**6, "b", " " * 10**6 + "c"])
    assert lengths[0] == MAX_CHARACTERS and lengths[1] == 1 and lengths[2] < 100


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(1, 40))
def test_cut_is_a_prefix_but_for_white_space_and_the_mark_of_markup(text, limit):
    cut = cut_caption(text, limit)
    assert len(cut) <= limit + 40
    if len(text) <= limit:
        assert cut == text
    words, whole = cut.removesuffix(" <").split(), text.split()
    assert words[:-1] == whole[: max(len(words) - 1, 0)]


def test_words_beyond_the_caches_size_are_dropped(bounded, monkeypatch):
    from d2prune.embed.model import tokenizer as module

    before = bounded([" ".join(map(str, range(40)))])
    monkeypatch.setattr(module, "_MAX_CACHED_WORDS", 3)
    bounded(["three more words"])
    assert len(bounded._tokenizer.cache) == 2
    monkeypatch.undo()
    assert bounded([" ".join(map(str, range(40)))]).equal(before)
