"""Pick orders, and the coreset of a given size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_finite_scores, as_labels
from d2prune.d2 import budget
from d2prune.errors import ArgumentError

Int64 = NDArray[np.int64]


def first(order: Int64, m: int, groups: ArrayLike | None = None) -> Int64:
    """Return the first m of a pick order, or with groups the first of each group, m in total.

    Args:
        order: int64 [P], distinct positions.
        m: 1 <= m <= P.
        groups: [N], label of each position. A group's share is in proportion to its members in
            `order` (`budget.quotas`).

    Returns:
        int64 [m], in pick order.

    Raises:
        ArgumentError: m is out of range.
    """
    if not 1 <= m <= len(order):
        raise ArgumentError(f"size is {m}, expected 1 <= size <= {len(order)}, the number of samples")
    labels = None if groups is None else as_labels(groups, "groups")[order]
    return order[budget.top(-np.arange(len(order)), m, labels)]


def sort_positions(key: NDArray[Any]) -> Int64:
    """Return positions by rising key, ties to the lower position."""
    return np.argsort(key, kind="stable")


def check_score(score: ArrayLike) -> NDArray[np.float64]:
    """Check a score and return it as float64 [N].

    Raises:
        ArgumentError: the score is not 1-d, is empty, or has a value that is not finite.
    """
    score_N = as_finite_scores(score, "score")
    if not len(score_N):
        raise ArgumentError("score: found no numbers; expected [N], N >= 1")
    return score_N.astype(np.float64)
