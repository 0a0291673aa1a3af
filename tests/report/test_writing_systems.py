import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.report.writing_systems import NAMES, system_codes

EXAMPLES = {
    "a red flag, 2 of 3": "Latin",
    "Ein grünes Tür-Schloß": "Latin",
    "красный флаг": "Cyrillic",
    "红旗在风中": "Chinese characters",
    "赤い旗が風になびく": "Japanese kana",
    "붉은 깃발": "Korean Hangul",
    "علم أحمر": "Arabic",
    "लाल झंडा": "Devanagari",
    "ธงสีแดง": "Thai",
    "κόκκινη σημαία": "Greek",
    "דגל אדום": "Hebrew",
    "ქართული დროშა": "other",
    "Nike 红旗 running shoes": "Latin",
    "红旗在风中 A4": "Chinese characters",
    "1234 !?": "none",
    "😀😀": "none",
    "": "none",
    None: "none",
}


@pytest.mark.parametrize("parts", [1, 4])
def test_each_caption_has_the_system_of_most_of_its_characters(parts):
    captions = list(EXAMPLES)
    step = -(-len(captions) // parts)
    chunks = [pa.array(captions[at : at + step], pa.string()) for at in range(0, len(captions), step)]
    found = system_codes(pa.chunked_array(chunks))
    assert [NAMES[code] for code in found] == list(EXAMPLES.values())
    assert not len(system_codes(pa.chunked_array([], pa.string())))


PREFIXES = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "HEBREW": "Hebrew", "THAI": "Thai", "GREEK": "Greek"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=8))
def test_any_text_has_one_system_and_letters_of_one_alphabet_have_theirs(captions):
    codes = system_codes(pa.chunked_array([pa.array(captions, pa.string())]))
    assert codes.dtype == np.int64 and len(codes) == len(captions)
    for caption, code in zip(captions, codes.tolist(), strict=True):
        if not any(unicodedata.category(char).startswith("L") for char in caption):
            continue
        first = {unicodedata.name(char, "?").split()[0] for char in caption if char.isalpha()}
        if len(first) == 1 and (expected := PREFIXES.get(first.pop())) and caption.isalpha():
            assert NAMES[code] == expected
