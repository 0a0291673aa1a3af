"""D2 Pruning in one call, for pools in memory: embeddings and difficulty in, coreset out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2 import budget
from d2prune.d2.api import select
from d2prune.d2.gamma import AUTO, DifficultyKind
from d2prune.errors import UserError

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
    """

    indices: NDArray[np.int64]
    selection_score: NDArray[np.int64]
    suppressed_by: NDArray[np.int64]


def d2_prune(
    embeddings: NDArray[np.floating],
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
) -> Coreset:
    """Keep the difficult and diverse share of a pool.

    D2 Pruning (Maharana, Yadav, Bansal, arXiv 2310.07931): builds the kNN graph of the embeddings,
    ranks the pool (`selection_scores`) and keeps the highest selection scores.

    The same input gives the same coreset on every machine. Without `groups`, the coreset of a
    smaller fraction is a prefix of that of a larger one.

    Args:
        embeddings: floats [N, D]. Rows are normalised; distances are squared Euclidean.
        difficulty: real numbers [N], 0 <= difficulty < 2**22; higher = more wanted. Shift scores
            that can be negative.
        fraction: share of N to keep, 0 < fraction <= 1: floor(N * fraction) samples, at least 1.
        n_neighbors: k of the kNN graph (paper: 1, 5, 10 or 15).
        gamma_forward: decay of the forward messages, as for `selection_scores`. At 0 every neighbour
            counts in full.
        gamma_reverse: decay of the reverse messages, likewise. Higher values keep more near-duplicates.
        groups: labels [N]. Each group keeps a share in proportion to its members that are not
            dropped; shares are rounded by largest remainder, so the total is exact.
        drop_score: finite numbers [N]. The samples with the lowest are dropped before the graph is
            built (the paper drops the lowest AUM, likely mislabelled samples).
        drop_fraction: share of N to drop by `drop_score` (the paper's beta), 0 <= drop_fraction < 1.
        target_recall: recall of an approximate kNN graph; None: exact.
        difficulty_kind: what the difficulty judges, as for `selection_scores`: `sample` for a CLIP
            score, `training` for AUM, forgetting and the like.

    Returns:
        The coreset, with scores for the whole pool.

    Raises:
        UserError: arrays of the wrong shape or dtype, a parameter out of range, or fewer samples
            left after dropping than `fraction` keeps.

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
        [1, 4, 5]
        >>> coreset.suppressed_by.tolist()    # which sample suppressed each of the others
        [1, -1, 1, 4, -1, 4]
    """
    embeddings, scores = np.asarray(embeddings), np.asarray(difficulty)
    _check_shapes(embeddings, difficulty=scores, groups=groups, drop_score=drop_score)
    n = len(embeddings)
    left = _find_left(n, drop_score, drop_fraction)
    size = budget.size_of_fraction(n, fraction)
    if size > len(left):
        raise UserError(f"fraction {fraction} is {size} samples, but dropping leaves only {len(left)}")

    # Imported here: the search loads torch, which ranking an existing graph does not need.
    from d2prune.knn.in_memory import knn_graph

    graph = knn_graph(embeddings[left], n_neighbors, target_recall)
    result = select(graph, scores[left], gamma_forward, gamma_reverse, difficulty_kind=difficulty_kind)
    selection_score, suppressed_by = np.full(n, DROPPED), np.full(n, -1)
    selection_score[left] = result.selection_score
    suppressed_by[left] = np.where(result.suppressed_by < 0, -1, left[result.suppressed_by])
    kept = budget.top(result.selection_score, size, None if groups is None else np.asarray(groups)[left])
    return Coreset(left[kept], selection_score, suppressed_by)


def _find_left(n: int, drop_score: ArrayLike | None, drop_fraction: float) -> NDArray[np.int64]:
    """Return the indices of the samples, of n, that `drop_score` leaves."""
    if drop_score is not None:
        return np.flatnonzero(~budget.drop_mask(drop_score, drop_fraction))
    if drop_fraction:
        raise UserError(f"drop_fraction is {drop_fraction}, but drop_score is None; expected scores [N]")
    return np.arange(n)


def _check_shapes(embeddings: NDArray[Any], **arrays: Any) -> None:
    """Refuse embeddings that are not floats [N, D], and arrays that are not [N]."""
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise UserError(f"embeddings: got {embeddings.dtype} {embeddings.shape}, expected floats [N, D]")
    n = len(embeddings)
    for name, array in arrays.items():
        if array is not None and np.shape(array) != (n,):
            raise UserError(f"{name} has shape {np.shape(array)}, expected one entry per embedding, ({n},)")
