"""Compiled loops of training.py: logs [N, E, C] in, float64 out, every sum from left to right.

Compiled without `fastmath`, which keeps the order of the sums, so a sample's score depends on its own
log alone, bit for bit. The sums over epochs are added to `total_N`: a log that is read epoch by epoch
gives the same bits. Suffixes: N samples, E epochs, C classes, D dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@kernel
def norms(h_NED: NDArray[Any]) -> Float64:
    """Compute the Euclidean norm over the last axis, float64 [N, E]."""
    out = np.empty(h_NED.shape[:2])
    for i in range(h_NED.shape[0]):
        for e in range(h_NED.shape[1]):
            square = 0.0
            for d in range(h_NED.shape[2]):
                square += np.float64(h_NED[i, e, d]) * np.float64(h_NED[i, e, d])
            out[i, e] = math.sqrt(square)
    return out


@kernel
def el2n(p_NEC: NDArray[Any], labels_N: Int64, weight_NE: Float64, total_N: Float64) -> None:
    """Add up over epochs weight * ||p - onehot(label)||."""
    n, n_epochs, n_classes = p_NEC.shape
    for i in range(n):
        total = total_N[i]
        for e in range(n_epochs):
            square = 0.0
            for c in range(n_classes):
                error = np.float64(p_NEC[i, e, c]) - (1.0 if c == labels_N[i] else 0.0)
                square += error * error
            total += math.sqrt(square) * weight_NE[i, e]
        total_N[i] = total


@kernel
def aum(z_NEC: NDArray[Any], labels_N: Int64, total_N: Float64) -> None:
    """Add up over epochs (highest other logit - label's logit)."""
    n, n_epochs, n_classes = z_NEC.shape
    for i in range(n):
        total = total_N[i]
        for e in range(n_epochs):
            other = -np.inf
            for c in range(n_classes):
                if c != labels_N[i]:
                    other = max(other, np.float64(z_NEC[i, e, c]))
            total += other - np.float64(z_NEC[i, e, labels_N[i]])
        total_N[i] = total


@kernel
def entropy(p_NEC: NDArray[Any], total_N: Float64) -> None:
    """Add up over epochs the entropy in nats."""
    n, n_epochs, n_classes = p_NEC.shape
    for i in range(n):
        total = total_N[i]
        for e in range(n_epochs):
            for c in range(n_classes):
                p = np.float64(p_NEC[i, e, c])
                if p > 0.0:
                    total -= p * math.log(p)
        total_N[i] = total


@kernel
def margin(p_NEC: NDArray[Any], total_N: Float64) -> None:
    """Add up over epochs (highest - second highest)."""
    n, n_epochs, n_classes = p_NEC.shape
    for i in range(n):
        total = total_N[i]
        for e in range(n_epochs):
            first, second = -1.0, -1.0
            for c in range(n_classes):
                p = np.float64(p_NEC[i, e, c])
                if p > first:
                    first, second = p, first
                elif p > second:
                    second = p
            total += first - second
        total_N[i] = total


@kernel
def deviation(p_NEC: NDArray[Any]) -> Float64:
    """Compute the mean over classes of the standard deviation over epochs, float64 [N]."""
    n, n_epochs, n_classes = p_NEC.shape
    out = np.empty(n)
    for i in range(n):
        total = 0.0
        for c in range(n_classes):
            mean = 0.0
            for e in range(n_epochs):
                mean += np.float64(p_NEC[i, e, c])
            mean /= n_epochs
            square = 0.0
            for e in range(n_epochs):
                difference = np.float64(p_NEC[i, e, c]) - mean
                square += difference * difference
            total += math.sqrt(square / n_epochs)
        out[i] = total / n_classes
    return out
