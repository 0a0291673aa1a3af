"""The writing system of captions: which alphabet most of a caption's letters are from; needs no model."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NAMES_AND_LETTERS = (
    ("Latin", r"\p{Latin}"),
    ("Cyrillic", r"\p{Cyrillic}"),
    ("Chinese characters", r"\p{Han}"),
    ("Japanese kana", r"[\p{Hiragana}\p{Katakana}]"),
    ("Korean Hangul", r"\p{Hangul}"),
    ("Arabic", r"\p{Arabic}"),
    ("Devanagari", r"\p{Devanagari}"),
    ("Thai", r"\p{Thai}"),
    ("Greek", r"\p{Greek}"),
    ("Hebrew", r"\p{Hebrew}"),
)
_LATIN, _HAN, _KANA = 0, 2, 3
_OTHER, _NO_LETTERS = len(_NAMES_AND_LETTERS), len(_NAMES_AND_LETTERS) + 1
NAMES = (*(name for name, _ in _NAMES_AND_LETTERS), "other", "no letters")
# Characters of a caption that are looked at.
_WITHIN = 400


def system_codes(captions: pa.ChunkedArray) -> NDArray[np.int64]:
    """The writing system that most letters of each caption are from, int64 [N], as codes into `NAMES`.

    Ties go to the earlier name. Chinese characters beside kana are Japanese.

    Args:
        captions: text [N]; nulls have no letters.
    """
    head = pc.utf8_slice_codeunits(captions.fill_null(""), 0, _WITHIN)
    array = pa.concat_arrays(head.chunks) if head.num_chunks else pa.array([], pa.string())
    has_latin = pc.match_substring_regex(array, "[A-Za-z]")
    code_N = np.where(has_latin.to_numpy(zero_copy_only=False).astype(bool), _LATIN, _NO_LETTERS)
    # Most captions end here; counting letters takes a microsecond each.
    row_M = np.flatnonzero(~pc.string_is_ascii(array).to_numpy(zero_copy_only=False).astype(bool))
    code_N[row_M] = _count_letters(array.take(pa.array(row_M)))
    return code_N.astype(np.int64)


def _count_letters(captions: pa.Array) -> NDArray[np.int64]:
    def count(pattern: str) -> NDArray[np.int64]:
        return np.asarray(pc.count_substring_regex(captions, pattern), np.int64)

    count_SM = np.stack([count(pattern) for _, pattern in _NAMES_AND_LETTERS])
    other_M = count(r"\p{L}") - count_SM.sum(axis=0)
    count_SM[_KANA] += np.where(count_SM[_KANA] > 0, count_SM[_HAN], 0)
    count_SM = np.concatenate([count_SM, np.maximum(other_M, 0)[None]])
    return np.where(count_SM.any(axis=0), count_SM.argmax(axis=0), _NO_LETTERS)
