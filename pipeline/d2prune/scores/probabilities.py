"""Probabilities from logits, for scores of training logs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_array


def softmax(logits: ArrayLike) -> NDArray[np.float32]:
    """Convert logits to probabilities, over the last axis.

    Args:
        logits: finite numbers [..., C].

    Returns:
        float32 of the same shape; computed in float64.
    """
    z = as_array(logits, "logits").astype(np.float64)
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=-1, keepdims=True), np.float32)
