"""Pick orders, and the coreset of a given size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.d2 import budget
from d2prune.errors import UserError

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
        UserError: m is out of range.
    """
    if not 1 <= m <= len(order):
        raise UserError(f"size is {m}, expected 1 <= size <= {len(order)}, the number of samples")
    labels = None if groups is None else np.asarray(groups)[order]
    return order[budget.top(-np.arange(len(order)), m, labels)]


def sort_positions(key: NDArray[Any]) -> Int64:
    """Return positions by rising key, ties to the lower position."""
    return np.argsort(key, kind="stable")


def check_score(score: ArrayLike) -> NDArray[np.float64]:
    """Check a score and return it as float64 [N].

    Raises:
        UserError: the score is not 1-d, is empty, or has a value that is not finite.
    """
    score_N = np.asarray(score)
    if score_N.ndim != 1 or not len(score_N) or score_N.dtype.kind not in "fiub":
        raise UserError(f"score: got {score_N.dtype} {score_N.shape}, expected numbers [N], N >= 1")
    bad = np.flatnonzero(~np.isfinite(score_N))
    if len(bad):
        raise UserError(f"score[{bad[0]}] is {score_N[bad[0]]}, expected a finite number")
    return score_N.astype(np.float64)
