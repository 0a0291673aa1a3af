"""D2 Pruning in one call, for pools in memory: embeddings and difficulty in, coreset out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_finite_scores, as_labels, as_number, as_rows
from d2prune.d2 import budget
from d2prune.d2.api import Selection, select
from d2prune.d2.gamma import AUTO, DifficultyKind
from d2prune.errors import ArgumentError

Int64 = NDArray[np.int64]

# Selection score of a sample that was dropped before the graph was built: below every real score.
DROPPED = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Coreset:
    """The samples that `d2_prune` keeps, and why the others are not kept.

    Attributes:
        indices: int64 [m], the samples kept, in pick order: by falling selection score, ties to the
            lower index.
        selection_score: int64 [N], in fixed point: units of 2**-40 of the difficulty. DROPPED, the
            lowest int64, for samples that `drop_score` removed.
        suppressed_by: int64 [N], the sample whose pick lowered this one's value most; -1 if none did.
        offset: the number that was added to the difficulty.
    """

    indices: NDArray[np.int64]
    selection_score: NDArray[np.int64]
    suppressed_by: NDArray[np.int64]
    offset: float


def d2_prune(
    embeddings: ArrayLike,
    difficulty: ArrayLike,
    fraction: float = 0.3,
    n_neighbors: int = 5,
    gamma_forward: float | str = AUTO,
    gamma_reverse: float | str = AUTO,
    groups: ArrayLike | None = None,
    drop_score: ArrayLike | None = None,
    drop_fraction: float = 0.0,
    target_recall: float | None = None,
    difficulty_kind: DifficultyKind = "training",
    offset: float | Literal["auto"] = "auto",
) -> Coreset:
    """Keep the difficult and diverse share of a pool.

    D2 Pruning (Maharana, Yadav, Bansal, arXiv 2310.07931): builds the kNN graph of the embeddings,
    ranks the pool (`selection_scores`) and keeps the highest selection scores.

    The same input gives the same coreset on every machine. Without `groups`, the coreset of a
    smaller fraction is a prefix of that of a larger one.

    Args:
        embeddings: numbers [N, D], in an array, tensor, frame or list (`d2prune.arguments`). Rows are
            normalised; distances are squared Euclidean.
        difficulty: finite numbers [N]; higher = more wanted. D2 works on max(difficulty + offset, 0),
            which must be below 2**22.
        fraction: share of N to keep, 0 < fraction <= 1: floor(N * fraction) samples, at least 1.
        n_neighbors: k of the kNN graph (paper: 1, 5, 10 or 15).
        gamma_forward: decay of the forward messages, as for `selection_scores`. At 0 every neighbour
            counts in full.
        gamma_reverse: decay of the reverse messages, likewise. Higher values keep more near-duplicates.
        groups: labels [N]; missing ones are one more group. Each group keeps a share in
            proportion to its members that are not dropped; shares are rounded by largest remainder.
        drop_score: finite numbers [N]. The samples with the lowest are dropped before the graph is
            built (the paper drops the lowest AUM, likely mislabelled samples).
        drop_fraction: share of N to drop by `drop_score` (the paper's beta), 0 <= drop_fraction < 1.
        target_recall: recall of an approximate kNN graph; None: exact.
        difficulty_kind: what the difficulty judges, as for `selection_scores`: `sample` for a CLIP
            score, `training` for AUM, forgetting and the like.
        offset: number added to the difficulty; "auto": minus the lowest of the pool, as in a run.

    Returns:
        The coreset, with scores for the whole pool.

    Raises:
        ArgumentError: a wrong array, value or parameter, or fewer samples left after dropping than
            `fraction` keeps. It is a ValueError.

    Example:
        Three near-duplicates, two of another kind and a single sample; keep half of them. Six samples
        have no typical distance, so gamma is a number here.

        >>> import numpy as np
        >>> from d2prune import d2_prune
        >>> angle = np.deg2rad([0, 1, 2, 90, 92, 200])
        >>> embeddings = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        >>> difficulty = [0.9, 1.0, 0.8, 0.6, 0.5, 0.4]
        >>> coreset = d2_prune(embeddings, difficulty, 0.5, n_neighbors=1, gamma_reverse=1.0)
        >>> coreset.indices.tolist()          # one of each kind; the top 3 are all of one kind
        [1, 3, 5]
        >>> coreset.suppressed_by.tolist()    # which sample suppressed each of the others
        [1, -1, 1, -1, 3, -1]
    """
    # Imported here: the search loads torch, which ranking an existing graph does not need.
    from d2prune.knn.in_memory import knn_graph

    rows_ND = as_rows(embeddings)
    n = len(rows_ND)
    difficulty_N, added = _shift(as_finite_scores(difficulty, "difficulty", n), offset)
    labels_N = None if groups is None else as_labels(groups, "groups", n)
    left, size = _choose_left(n, drop_score, drop_fraction, fraction)
    graph = knn_graph(rows_ND if len(left) == n else rows_ND[left], n_neighbors, target_recall)
    result = select(graph, difficulty_N[left], gamma_forward, gamma_reverse, difficulty_kind=difficulty_kind)
    kept = budget.top(result.selection_score, size, None if labels_N is None else labels_N[left])
    return Coreset(left[kept], *_spread(result, left, n), added)


def _choose_left(
    n: int, drop_score: ArrayLike | None, drop_fraction: float, fraction: float
) -> tuple[Int64, int]:
    """Return the samples that are not dropped, and how many of them to keep."""
    score_N = np.zeros(n) if drop_score is None else as_finite_scores(drop_score, "drop_score", n)
    left = np.flatnonzero(~budget.drop_mask(score_N, drop_fraction))
    if drop_score is None and drop_fraction:
        raise ArgumentError(f"drop_score: found None with drop_fraction {drop_fraction}; expected scores [N]")
    size = budget.size_of_fraction(n, fraction)
    if size > len(left):
        raise ArgumentError(
            f"fraction: found {fraction}, which keeps {size} samples; expected at most the {len(left)} that "
            "drop_fraction leaves"
        )
    return left, size


def _spread(
    result: Selection, left: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return selection scores and suppressors of the whole pool."""
    selection_score, suppressed_by = np.full(n, DROPPED), np.full(n, -1)
    selection_score[left] = result.selection_score
    suppressed_by[left] = np.where(result.suppressed_by < 0, -1, left[result.suppressed_by])
    return selection_score, suppressed_by


def _shift(score_N: NDArray[Any], offset: float | str) -> tuple[NDArray[Any], float]:
    """Return max(score + offset, 0), in float64 unless the score is float32, and the offset."""
    if isinstance(offset, str) and offset == "auto":
        added = 0.0 - float(score_N.min())
    else:
        added = as_number(offset, "offset", "a finite number, or auto", lambda value: abs(value) < np.inf)
    shifted_N = np.maximum(score_N.astype(np.float64) + added, 0.0)
    if len(shifted_N) > 1 and not shifted_N.any():
        warnings.warn(
            f"difficulty: every score plus the offset {added} is 0 or less, so positions alone decide the "
            "coreset; expected scores that differ, or another offset",
            stacklevel=3,
        )
    narrow = score_N.dtype.kind == "f" and score_N.dtype.itemsize <= 4
    return (shifted_N.astype(np.float32) if narrow else shifted_N), added
