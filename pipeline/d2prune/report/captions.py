"""Captions as text to show: shortened to one line, and the words that set one cluster apart."""

import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

CAPTION_LIMIT = 160
_ELLIPSIS = "\u2026"
_MIN_WORD_LENGTH, _MAX_WORD_LENGTH = 3, 24
# Characters of a caption that are searched for words.
_WORDS_WITHIN = 400
_STOP_WORDS = frozenset(
    "the and with for from are was this that its his her their our your you not but has have had all one two "
    "into over under near very photo photograph picture image images jpg png com www http https".split()
)


def shorten(text: str, limit: int = CAPTION_LIMIT) -> str:
    """One line of at most `limit` characters, without control characters."""
    head = text[: 8 * limit]
    printable = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in head)
    line = " ".join(printable.split())
    if len(line) <= limit and len(text) <= len(head):
        return line
    return line[: limit - 1].rstrip() + _ELLIPSIS


def distinctive_words(captions: Sequence[str], label_N: NDArray[np.int64], size: int = 3) -> dict[int, str]:
    """For each cluster, the words more frequent in its captions than elsewhere, most distinctive first.

    Args:
        captions: of N samples.
        label_N: int64 [N], the cluster of each.
        size: words per cluster.
    """
    row_W, code_W, names = word_codes(pa.chunked_array([pa.array(captions, pa.string())]))
    overall_V = np.bincount(code_W, minlength=len(names))
    found = {}
    for label in np.unique(label_N).tolist():
        count_V = np.bincount(code_W[label_N[row_W] == label], minlength=len(names))
        present = np.flatnonzero(count_V)
        # Squaring the count favours words that are frequent in the cluster; without it, a typing
        # error that occurs once and only there would score highest.
        weight = count_V[present] ** 2 / overall_V[present]
        best = present[weight >= np.sort(weight)[-size:].min(initial=np.inf)]
        ranked = sorted(
            best.tolist(), key=lambda code: (-(count_V[code] ** 2) / overall_V[code], names[code])
        )
        found[int(label)] = ", ".join(names[code] for code in ranked[:size])
    return found


def word_codes(captions: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Find the distinct words of each caption: 3 to 24 alphabetic characters, lower case, no stop words.

    Args:
        captions: text [N]; nulls have no words.

    Returns:
        int64 [W] each: the row of a word and its index in the list of all words; and that list. A word
        counts once per caption.
    """
    head = pc.utf8_slice_codeunits(captions.fill_null(""), 0, _WORDS_WITHIN)
    array = pa.concat_arrays(head.chunks) if head.num_chunks else pa.array([], pa.string())
    lists = pc.split_pattern_regex(pc.utf8_lower(array), r"[^\p{L}\p{M}]+")
    row_W = np.asarray(pc.list_parent_indices(lists), np.int64)
    words = pc.list_flatten(lists)
    encoded = words.dictionary_encode()
    names = encoded.dictionary
    length = pc.utf8_length(names).to_numpy(zero_copy_only=False)
    is_word = (length >= _MIN_WORD_LENGTH) & (length <= _MAX_WORD_LENGTH)
    is_word &= ~pc.is_in(names, value_set=pa.array(sorted(_STOP_WORDS))).to_numpy(zero_copy_only=False)
    code_W = np.asarray(encoded.indices, np.int64)
    chosen = is_word[code_W] if len(names) else np.zeros(0, bool)
    pair_W = np.unique(row_W[chosen] * max(len(names), 1) + code_W[chosen])
    row_W, code_W = np.divmod(pair_W, max(len(names), 1))
    return row_W, code_W, names.to_pylist()
