"""Search by words, first pages without sorting: both equal what a naive search and a full sort give."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2prune.explore import sample_index
from d2prune.explore.explain import Ranking
from d2prune.explore.matching import contains
from d2prune.explore.numbers import Numbers
from d2prune.explore.query import Query, split_words
from d2prune.explore.sample_index import SampleIndex
from d2prune.explore.texts import Texts
from d2prune.parts.spans import Spans


class Parts:
    """What `Texts` reads, from rows in memory."""

    def __init__(self, parts):
        self.tables = [
            pa.table(
                {
                    "uid": pa.array([row[0] for row in rows], pa.string()),
                    "key": pa.array([row[1] for row in rows], pa.string()),
                    "caption": pa.array([row[2] for row in rows], pa.string()),
                }
            )
            for rows in parts
        ]
        self.spans = Spans.of_rows([len(rows) for rows in parts])
        self.reads = 0

    def peek(self, part, table, columns):
        self.reads += 1
        return self.tables[part]


def fold(text):
    """Simple case folding: of each character the full one if that is one character, else its lower case."""
    return "".join(next((f for f in (c.casefold(), c.lower()) if len(f) == 1), c) for c in text)


def matches(row, words):
    uid, key, caption = row
    return all(
        fold(word) in fold(caption or "")
        or uid.startswith(word.lower().replace("-", ""))
        or key in (word, f"./{word}")
        for word in words
    )


ROWS = st.lists(
    st.tuples(
        st.text("ab01", min_size=32, max_size=32),
        st.sampled_from(["a", "ab", "./b", "0"]),
        st.none() | st.text('aAbB0 "%_\\.é', max_size=12),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(ROWS, min_size=1, max_size=3),
    st.text('aAbB0 %_\\.é"', max_size=8),
    st.sampled_from([0, 1 << 20]),
)
def test_every_word_of_a_search_must_match(parts, text, limit):
    found = Texts(Parts(parts), limit).match(split_words(text))
    assert found.tolist() == [matches(row, split_words(text)) for rows in parts for row in rows]


# Variants of one, two and three bytes, of the same letter; foldings of two letters; no letters.
LETTERS = "aAkK\u212asS\u017fßẞσςΣµμiIİıéÉåÅ\u212bωΩ\u2126ⱥȺдДрРdzDžDZꭰᎠ🙂日 -\0[{"  # noqa: RUF001


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_word_is_found_in_any_case_and_script(data):
    """Against the naive search, in texts that lie in any pieces of one buffer, null or not wanted."""
    words = st.text(LETTERS, min_size=1, max_size=6)
    word = data.draw(words)
    pieces = words | st.just(word) | st.just(word.swapcase()) | st.sampled_from(["long " * 20, "k" * 70])
    texts = data.draw(st.lists(st.none() | st.lists(pieces, max_size=4).map("".join), max_size=12))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=2)))
    whole = pa.array(texts, pa.string())
    chunks = [whole[a:b] for a, b in pairwise([0, *cuts, len(texts)])]
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))), bool)
    found = contains(pa.chunked_array(chunks, pa.string()), word, wanted)
    assert found.tolist() == [
        bool(w) and text is not None and fold(word) in fold(text)
        for text, w in zip(texts, wanted, strict=True)
    ]


@pytest.mark.parametrize(
    ("word", "text", "expected"),
    [
        ("STRASSE", "straße", False),
        ("STRAẞE", "straße", True),
        ("kelvin", "\u212aELVIN", True),
        ("ss", "\u017f\u017f", True),
        ("\ud800", "?", False),
        ("car", "ca", False),
        ("x" * 500, "y" + "X" * 500, True),
    ],
)
def test_words_with_variants_of_several_lengths(word, text, expected):
    texts = pa.chunked_array([["", text, "a"]])
    assert contains(texts, word, np.ones(3, bool)).tolist() == [False, expected, False]


def test_a_match_lies_inside_one_text():
    texts = pa.chunked_array([["red c", "ar", "", "c", "a", "rcar"] * 30])
    assert contains(texts, "car", np.ones(180, bool)).tolist() == [*[False] * 5, True] * 30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("  red\tcar ", ("red", "car")),
        ('"red car" red red', ("red car", "red")),
        ('say "hi', ("say", '"hi')),
        ('""', ('""',)),
        ('"  " x', ("x",)),
    ],
)
def test_words_and_phrases_of_a_search(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(("limit", "reads"), [(1 << 20, 2), (0, 5)])
def test_texts_beyond_the_limit_are_read_by_every_search(limit, reads):
    parts = Parts([[("a" * 32, "k", "red car")]] * 2)
    texts = Texts(parts, limit)
    texts.load()
    for words in (("car", "red"), ("red",)):
        assert texts.match(words).all()
    assert parts.reads == reads


SORTS = ["selection", "score", "forward", "suppression", "position", "reason"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_page_without_sorting_equals_the_sorted_list(finished, monkeypatch, data):
    """Blocks of 16 rows and many ties: few distinct scores, some samples not ranked."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, few = len(finished), data.draw(st.integers(1, 5))
    numbers = Numbers(
        difficulty_N=rng.integers(0, few, n).astype(np.float32),
        forward_N=rng.integers(0, few, n).astype(np.float64),
        ranking=Ranking(rng.integers(-few, few, n), rng.random(n) < 0.8, rng.random(n) < 0.3),
        reason_N=rng.integers(0, 2, n).astype(np.int8),
        reasons=("below-budget", "kept"),
    )
    monkeypatch.setattr(sample_index, "_BLOCK", 16)
    monkeypatch.setattr(sample_index, "read_numbers", lambda run: numbers)
    index = SampleIndex(finished)
    query = Query(sort=data.draw(st.sampled_from(SORTS)), descending=data.draw(st.booleans()))
    member_N = data.draw(st.sampled_from([None, rng.random(n) < 0.3, np.zeros(n, bool)]))
    start, limit = data.draw(st.integers(0, n + 3)), data.draw(st.integers(0, 20))
    total, positions = index.page(query, start, limit, member_N)
    everything = index.find(query, member_N)
    if query.sort in ("selection", "score", "forward", "suppression"):
        rows = range(n) if member_N is None else np.flatnonzero(member_N)
        key = index._keys(query.sort)
        naive = sorted(rows, key=lambda row: (key[row], row), reverse=not query.descending)
        assert everything.tolist() == naive
    assert total == len(everything)
    assert positions.tolist() == everything[start : start + limit].tolist()
