"""The writing system of captions: which script most of a caption is written in; needs no model."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NAMES_AND_PATTERNS = (
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
_OTHER, _NONE = len(_NAMES_AND_PATTERNS), len(_NAMES_AND_PATTERNS) + 1
NAMES = (*(name for name, _ in _NAMES_AND_PATTERNS), "other", "none")
# Characters of a caption that are looked at.
_WITHIN = 400


def system_codes(captions: pa.ChunkedArray) -> NDArray[np.int64]:
    """The writing system of most characters of each caption, int64 [N], as codes into `NAMES`.

    Ties go to the earlier name. Chinese characters beside kana are Japanese.

    Args:
        captions: text [N]; nulls, digits and symbols have none.
    """
    head = pc.utf8_slice_codeunits(captions.fill_null(""), 0, _WITHIN)
    array = pa.concat_arrays(head.chunks) if head.num_chunks else pa.array([], pa.string())
    has_latin = pc.match_substring_regex(array, "[A-Za-z]")
    code_N = np.where(has_latin.to_numpy(zero_copy_only=False).astype(bool), _LATIN, _NONE)
    # Most captions end here; counting takes microseconds each.
    row_M = np.flatnonzero(~pc.string_is_ascii(array).to_numpy(zero_copy_only=False).astype(bool))
    code_N[row_M] = _count_characters(array.take(pa.array(row_M)))
    return code_N.astype(np.int64)


def _count_characters(captions: pa.Array) -> NDArray[np.int64]:
    def count(pattern: str) -> NDArray[np.int64]:
        return np.asarray(pc.count_substring_regex(captions, pattern), np.int64)

    count_SM = np.stack([count(pattern) for _, pattern in _NAMES_AND_PATTERNS])
    other_M = count(r"\p{L}") - count_SM.sum(axis=0)
    count_SM[_KANA] += np.where(count_SM[_KANA] > 0, count_SM[_HAN], 0)
    count_SM = np.concatenate([count_SM, np.maximum(other_M, 0)[None]])
    return np.where(count_SM.any(axis=0), count_SM.argmax(axis=0), _NONE)
