"""D2 Pruning in one call, for pools that fit in memory: embeddings and difficulty in, the coreset out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2 import budget
from d2prune.d2.api import select
from d2prune.errors import UserError

# Selection score of a sample that the cut-off removed before the graph was built: below every real one.
DROPPED = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Coreset:
    """What `d2_prune` keeps, and why.

    Attributes:
        indices: int64 [m], the samples kept, in pick order (falling selection score, ties to the
            lower index).
        selection_score: int64 [N] in units of 2**-40; DROPPED for samples cut off by `drop_score`.
        suppressed_by: int64 [N], the sample whose pick lowered this one most; -1: none.
    """

    indices: NDArray[np.int64]
    selection_score: NDArray[np.int64]
    suppressed_by: NDArray[np.int64]


def d2_prune(
    embeddings: NDArray[np.floating],
    difficulty: ArrayLike,
    fraction: float = 0.3,
    n_neighbors: int = 5,
    gamma_forward: float = 1.0,
    gamma_reverse: float = 1.0,
    groups: ArrayLike | None = None,
    drop_score: ArrayLike | None = None,
    drop_fraction: float = 0.0,
    target_recall: float | None = None,
) -> Coreset:
    """Choose the share of a pool that is difficult and diverse (Maharana et al., arXiv 2310.07931, algorithm 1).

    The same input gives the same coreset on every machine, and coresets of smaller fractions are
    prefixes of larger ones (without groups).

    Args:
        embeddings: float [N, D]; rows are normalised, distances are squared Euclidean between them.
        difficulty: [N] numbers >= 0 and < 2**22, higher = more wanted.
        fraction: share of N to keep, floor(N * fraction) samples and at least 1; 0 < fraction <= 1.
        n_neighbors: k of the kNN graph (paper: 1, 5, 10 or 15).
        gamma_forward: decay exp(-gamma * d^2) of the forward messages; 0: all neighbours count in full.
        gamma_reverse: decay of the reverse messages; higher keeps more near-duplicates.
        groups: [N] labels; each group keeps a share in proportion to its members that are not
            dropped, exact in sum.
        drop_score: [N] numbers; the lowest are dropped before the graph is built (paper: AUM,
            likely mislabelled).
        drop_fraction: share of N dropped by `drop_score` (paper: beta), 0 <= drop_fraction < 1.
        target_recall: recall of the kNN graph; None: exact.

    Returns:
        A Coreset.

    Raises:
        UserError: arrays that do not fit together, a parameter out of range, fewer samples left than wanted.

    Example:
        Three near-duplicates, two of another kind, one on its own: half of them are wanted.

        >>> import numpy as np
        >>> from d2prune.d2.coreset import d2_prune
        >>> angle = np.deg2rad([0, 1, 2, 90, 92, 200])
        >>> embeddings = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        >>> difficulty = [0.9, 1.0, 0.8, 0.6, 0.5, 0.4]
        >>> coreset = d2_prune(embeddings, difficulty, fraction=0.5, n_neighbors=1)
        >>> coreset.indices.tolist()          # one of each kind; "the 3 most difficult" were all of one kind
        [1, 4, 5]
        >>> coreset.suppressed_by.tolist()    # and who stood in the way of the others
        [1, -1, 1, 4, -1, 4]
        >>> d2_prune(embeddings, difficulty, fraction=0.3, n_neighbors=1).indices.tolist()
        [1]
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
        raise UserError(f"embeddings: got {embeddings.dtype} {embeddings.shape}, expected floats [N, D]")
    n = len(embeddings)
    scores = np.asarray(difficulty)
    for name, array in (("difficulty", scores), ("groups", groups), ("drop_score", drop_score)):
        if array is not None and np.shape(array) != (n,):
            raise UserError(
                f"{name} has shape {np.shape(array)}, expected one entry for each of {n} embeddings"
            )
    if drop_fraction and drop_score is None:
        raise UserError(f"drop_fraction is {drop_fraction}, but there is no drop_score to drop by")
    size = budget.size_of_fraction(n, fraction)
    dropped = np.zeros(n, np.bool_) if drop_score is None else budget.drop_mask(drop_score, drop_fraction)
    left = np.flatnonzero(~dropped)
    if size > len(left):
        raise UserError(
            f"fraction {fraction} is {size} of {n} samples, but drop_fraction leaves only {len(left)}"
        )

    # Imported here: searching neighbours pulls in much that ranking a ready graph does not need.
    from d2prune.knn.in_memory import knn_graph

    graph = knn_graph(embeddings[left], n_neighbors, target_recall)
    result = select(graph, scores[left], gamma_forward, gamma_reverse)
    selection_score, suppressed_by = np.full(n, DROPPED), np.full(n, -1)
    selection_score[left] = result.selection_score
    suppressed_by[left] = np.where(result.suppressed_by < 0, -1, left[result.suppressed_by])
    kept = budget.top(result.selection_score, size, None if groups is None else np.asarray(groups)[left])
    return Coreset(left[kept], selection_score, suppressed_by)
