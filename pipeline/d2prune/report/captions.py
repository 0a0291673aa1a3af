"""Captions as text to show: shortened to one line, and the words that set one cluster apart."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CAPTION_LIMIT = 160
_ELLIPSIS = "\u2026"
_WORD = re.compile(r"[^\W\d_]{3,}")
_MAX_WORD_LENGTH = 24
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
    by_cluster: dict[int, Counter[str]] = {int(label): Counter() for label in np.unique(label_N)}
    overall: Counter[str] = Counter()
    for caption, label in zip(captions, label_N.tolist(), strict=True):
        words = {
            word
            for word in _WORD.findall(caption[:400].lower())
            if word not in _STOP_WORDS and len(word) <= _MAX_WORD_LENGTH
        }
        by_cluster[label].update(words)
        overall.update(words)
    found = {}
    for label, counts in by_cluster.items():
        # Squaring the count favours words that are frequent in the cluster; without it, a typing
        # error that occurs once and only there would score highest.
        ranked = sorted(counts, key=lambda word: (-(counts[word] ** 2) / overall[word], word))
        found[label] = ", ".join(ranked[:size])
    return found
