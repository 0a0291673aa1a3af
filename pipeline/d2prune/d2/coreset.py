"""D2 Pruning in one call, for pools in memory: embeddings and difficulty in, coreset out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_finite_scores, as_labels, as_number, as_rows, as_whole
from d2prune.d2 import budget
from d2prune.d2.api import Selection, select
from d2prune.d2.fixed_point import SCALE, resolve_auto_offset
from d2prune.d2.gamma import AUTO, DifficultyKind
from d2prune.errors import ArgumentError
from d2prune.knn.csr import Graph

Int64 = NDArray[np.int64]

# Selection score of a sample that was dropped before the graph was built: below every real score.
DROPPED = np.iinfo(np.int64).min
_DEFAULT_FRACTION = 0.3


@dataclass(frozen=True, eq=False, repr=False)
class Coreset:
    """The samples that `d2_prune` keeps, and why the others are not kept.

    Attributes:
        indices: int64 [m], the samples kept, in pick order: by falling selection score, ties to the
            lower index.
        selection_score: int64 [N], in fixed point: units of 2**-40 of the difficulty. DROPPED, the
            lowest int64, for samples that `drop_score` removed.
        suppressed_by: int64 [N], the sample whose pick lowered this one's value most; -1 if none did.
        offset: the number that was added to the difficulty.
        groups: int64 [N], the group of each sample, numbered in the order of the labels; None
            without groups.
    """

    indices: NDArray[np.int64]
    selection_score: NDArray[np.int64]
    suppressed_by: NDArray[np.int64]
    offset: float
    groups: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        """One line: how many samples are kept."""
        return f"Coreset({len(self):,} of {len(self.selection_score):,} samples, offset={self.offset:g})"

    def __len__(self) -> int:
        """Number of samples kept."""
        return len(self.indices)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool [N], True for the samples kept: `embeddings[coreset.mask]`."""
        kept_N = np.zeros(len(self.selection_score), np.bool_)
        kept_N[self.indices] = True
        return kept_N

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64 [N], the selection score in units of the difficulty; -inf for dropped samples.

        The fixed point decides; floats may round two different scores to one.
        """
        dropped_N = self.selection_score == DROPPED
        return np.where(dropped_N, -np.inf, self.selection_score / SCALE)

    def take(self, fraction: float | None = None, size: int | None = None) -> Coreset:
        """Return the coreset of another budget, smaller or larger. Nothing is computed again.

        Args:
            fraction: share of N to keep, as for `d2_prune`.
            size: number of samples to keep, instead of a fraction.

        Raises:
            ArgumentError: both or neither of them, one out of range, or more samples than were not
                dropped.
        """
        left = np.flatnonzero(self.selection_score != DROPPED)
        if fraction is None and size is None:
            raise ArgumentError("take: found no fraction and no size; expected one of them")
        count = _resolve_size(len(self.selection_score), len(left), fraction, size)
        labels_M = None if self.groups is None else self.groups[left]
        kept = left[budget.top(self.selection_score[left], count, labels_M)]
        return replace(self, indices=kept)


def d2_prune(
    embeddings: ArrayLike | Graph,
    difficulty: ArrayLike,
    fraction: float | None = None,
    n_neighbors: int = 5,
    gamma_forward: float | str = AUTO,
    gamma_reverse: float | str = AUTO,
    groups: ArrayLike | None = None,
    drop_score: ArrayLike | None = None,
    drop_fraction: float = 0.0,
    target_recall: float | None = None,
    difficulty_kind: DifficultyKind = "training",
    offset: float | Literal["auto"] = "auto",
    size: int | None = None,
) -> Coreset:
    """Keep the difficult and diverse share of a pool.

    D2 Pruning (Maharana, Yadav, Bansal, arXiv 2310.07931): builds the kNN graph of the embeddings,
    ranks the pool (`selection_scores`) and keeps the highest selection scores.

    The same input gives the same coreset on every machine. Without `groups`, the coreset of a
    smaller fraction is a prefix of that of a larger one.

    Args:
        embeddings: numbers [N, D], in a numpy array, torch tensor of any dtype and device, pandas or
            polars frame, pyarrow table or list (`d2prune.arguments`). Rows are normalised; distances are
            squared Euclidean. Or a ready graph over N samples, such as `knn_graph` returns:
            `n_neighbors` is then not used.
        difficulty: finite numbers [N]; higher = more wanted. D2 works on max(difficulty + offset, 0),
            which must be below 2**22.
        fraction: share of N to keep, 0 < fraction <= 1: floor(N * fraction) samples, at least 1.
            Default: 0.3, unless `size` is given.
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
        offset: number added to the difficulty; "auto": minus the lowest of the pool, as in a run. If
            all are equal, "auto" makes them 1, so that diversity alone decides.
        size: number of samples to keep, instead of a fraction.

    Returns:
        The coreset, with scores for the whole pool.

    Raises:
        ArgumentError: a wrong array, value or parameter, or fewer samples left after dropping than
            the budget keeps. It is a ValueError.

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
    pool = embeddings if isinstance(embeddings, Graph) else as_rows(embeddings)
    n = pool.n_nodes if isinstance(pool, Graph) else len(pool)
    difficulty_N, added = _shift(as_finite_scores(difficulty, "difficulty", n), offset)
    labels_N = None if groups is None else as_labels(groups, "groups", n)
    left, kept_size = _choose_left(n, drop_score, drop_fraction, fraction, size)
    graph = _find_graph(pool, left, n_neighbors, target_recall)
    result = select(graph, difficulty_N[left], gamma_forward, gamma_reverse, difficulty_kind=difficulty_kind)
    kept = budget.top(result.selection_score, kept_size, None if labels_N is None else labels_N[left])
    return Coreset(left[kept], *_spread(result, left, n), added, labels_N)


def _find_graph(
    pool: Graph | NDArray[Any], left: Int64, n_neighbors: int, target_recall: float | None
) -> Graph:
    """Return the graph of the samples that are left: the ready one, or one built from embeddings."""
    if not isinstance(pool, Graph):
        # Imported here: the search loads torch if it is installed, which a ready graph does not need.
        from d2prune.knn.in_memory import knn_graph

        return knn_graph(pool if len(left) == len(pool) else pool[left], n_neighbors, target_recall)
    for name, given in (
        ("target_recall", target_recall is not None),
        ("drop_fraction", len(left) < pool.n_nodes),
    ):
        if given:
            raise ArgumentError(f"{name}: found it with a ready graph; expected embeddings to build one from")
    return pool


def _choose_left(
    n: int, drop_score: ArrayLike | None, drop_fraction: float, fraction: float | None, size: int | None
) -> tuple[Int64, int]:
    """Return the samples that are not dropped, and how many of them to keep."""
    score_N = np.zeros(n) if drop_score is None else as_finite_scores(drop_score, "drop_score", n)
    left = np.flatnonzero(~budget.drop_mask(score_N, drop_fraction))
    if drop_score is None and drop_fraction:
        raise ArgumentError(f"drop_score: found None with drop_fraction {drop_fraction}; expected scores [N]")
    return left, _resolve_size(n, len(left), fraction, size)


def _resolve_size(n: int, left: int, fraction: float | None, size: int | None) -> int:
    """Return the number of samples to keep of the `left` that are not dropped."""
    if size is not None:
        if fraction is not None:
            raise ArgumentError(f"found fraction {fraction} and size {size}; expected only one of them")
        return as_whole(size, "size", 1, left)
    share = _DEFAULT_FRACTION if fraction is None else fraction
    count = budget.size_of_fraction(n, share)
    if count > left:
        raise ArgumentError(
            f"fraction: found {share}, which keeps {count} samples; expected at most the {left} that "
            "drop_fraction leaves"
        )
    return count


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
        added = resolve_auto_offset(float(score_N.min()), float(score_N.max()))
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
