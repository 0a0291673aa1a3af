"""A stored score as difficulty: read a column, shift it, clamp it at zero."""

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError


def shift(score_N: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float32]:
    """The kernel's difficulty: `max(score + offset, 0)`, in float64, then float32.

    Args:
        score_N: a score, higher = more wanted.
        offset: what to add, in the score's unit. The released DataComp code adds 0.115 to CLIP scores.

    Returns:
        float32 [N], all >= 0.

    Raises:
        UserError: a score is not finite.
    """
    bad = np.flatnonzero(~np.isfinite(score_N))
    if bad.size:
        raise UserError(f"score.difficulty: row {bad[0]} is {score_N[bad[0]]}, expected a finite number")
    return np.maximum(score_N.astype(np.float64) + offset, 0.0).astype(np.float32)
