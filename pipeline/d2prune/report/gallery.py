"""Which samples the page shows, and the words beside them: pure functions of arrays and strings.

Every choice is seeded or a plain order with ties broken by position, so the same run shows the same pictures.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CAPTION_LIMIT = 160
_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = frozenset(
    "the and with for from are was this that its his her their our your you not but has have had all one two into "
    "over under near very photo photograph picture image images jpg png com www http https".split()
)


def shorten(text: str, limit: int = CAPTION_LIMIT) -> str:
    """One line of at most `limit` characters, without control characters."""
    head = text[: 8 * limit]
    plain = "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in head)
    line = " ".join(plain.split())
    if len(line) <= limit and len(text) <= len(head):
        return line
    return line[: limit - 1].rstrip() + "\u2026"


def spread(
    candidates: NDArray[np.int64], label_N: NDArray[np.int64], size: int, seed: int
) -> NDArray[np.int64]:
    """A seeded choice of at most `size` candidates that takes turns among their clusters.

    Args:
        candidates: rows of the sample.
        label_N: int64 [N], the cluster of every row of the sample.
        size: how many.
        seed: of the choice.
    """
    shuffled = np.random.default_rng(seed).permutation(candidates)
    seen: Counter[int] = Counter()
    turns = []
    for row in shuffled.tolist():
        cluster = int(label_N[row])
        turns.append(seen[cluster])
        seen[cluster] += 1
    return np.asarray(shuffled[np.argsort(turns, kind="stable")][:size], dtype=np.int64)


def dense_and_sparse(
    crowding_N: NDArray[np.float64], kept_N: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kept rows among the most and the least crowded tenth of the sample (of the kept, where these hold none).

    Args:
        crowding_N: what neighbours add to a sample's score in the forward pass: high in dense regions.
        kept_N: bool [N].
    """
    rows = np.flatnonzero(kept_N & np.isfinite(crowding_N))
    if not len(rows):
        return rows, rows
    low, high = np.nanquantile(crowding_N, [0.1, 0.9])
    crowding = crowding_N[rows]
    dense, sparse = rows[crowding >= high], rows[crowding <= low]
    order = rows[np.argsort(crowding, kind="stable")]
    tenth = max(1, len(rows) // 10)
    return (dense if len(dense) else order[-tenth:]), (sparse if len(sparse) else order[:tenth])


def closest_pairs(
    suppression_N: NDArray[np.float64], suppressor_score_N: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Order pairs by closeness without their embeddings, closest first.

    A message is exp(-gamma_r d^2) * max(t, 0), so the share of its sender's score t that it carries
    falls with the distance d.

    Args:
        suppression_N: float64, the strongest message a sample got.
        suppressor_score_N: float64, the selection score of the neighbour that sent it.
    """
    share_N = suppression_N / np.where(suppressor_score_N > 0, suppressor_score_N, np.inf)
    return np.asarray(np.lexsort((-suppression_N, -np.round(share_N, 9))), dtype=np.int64)


def pick_pairs(
    suppressor_N: NDArray[np.int64],
    similarity_N: NDArray[np.float64],
    suppressor_kept_N: NDArray[np.bool_],
    size: int,
) -> NDArray[np.int64]:
    """Rows of candidate pairs worth showing: a kept neighbour first, then the most alike, one for each neighbour."""
    order = np.lexsort((-similarity_N, ~suppressor_kept_N))
    _, first = np.unique(suppressor_N[order], return_index=True)
    once = np.sort(first)
    again = np.setdiff1d(np.arange(len(order)), once)
    return np.asarray(order[np.concatenate([once, again]).astype(np.int64)][:size], dtype=np.int64)


def telling_words(captions: Sequence[str], label_N: NDArray[np.int64], wanted: int = 3) -> dict[int, str]:
    """For every cluster the words that are more frequent in its captions than elsewhere, most telling first."""
    inside: dict[int, Counter[str]] = {int(cluster): Counter() for cluster in np.unique(label_N)}
    everywhere: Counter[str] = Counter()
    for caption, cluster in zip(captions, label_N.tolist(), strict=True):
        words = {
            word for word in _WORD.findall(caption[:400].lower()) if word not in _COMMON and len(word) <= 24
        }
        inside[cluster].update(words)
        everywhere.update(words)
    found = {}
    for cluster, words_here in inside.items():
        # Squaring the count weighs "frequent here" over "only here", which would pick out typing errors.
        ranked = sorted(words_here, key=lambda word: (-(words_here[word] ** 2) / everywhere[word], word))
        found[cluster] = ", ".join(ranked[:wanted])
    return found
