"""Naive references of the difficulty scores: plain Python floats, one sample at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np


def added(values):
    """Sum from left to right; from Python 3.12 on, `sum` compensates rounding errors."""
    total = 0.0
    for value in values:
        total += value
    return total


def _by_sample(score):
    """Turn a function of one sample's log [E][C] and label into one that returns float32 [N]."""

    def of_all(log, labels):
        rows = np.asarray(log).tolist()
        return np.array([score(row, int(label)) for row, label in zip(rows, labels, strict=True)]).astype(
            np.float32
        )

    return of_all


@_by_sample
def el2n(log, label):
    return added(
        math.sqrt(added((p - (c == label)) * (p - (c == label)) for c, p in enumerate(row))) for row in log
    ) / len(log)


@_by_sample
def forgetting(log, label):
    right = [row.index(max(row)) == label for row in log]
    if not any(right):
        return len(log)
    return sum(before and not after for before, after in itertools.pairwise(right))


@_by_sample
def aum(log, label):
    return added(max(z for c, z in enumerate(row) if c != label) - row[label] for row in log) / len(log)


@_by_sample
def entropy(log, label):
    total = 0.0
    for row in log:
        for p in row:
            if p > 0:
                total -= p * math.log(p)
    return total / len(log)


@_by_sample
def margin(log, label):
    return 1.0 - added(sorted(row)[-1] - sorted(row)[-2] for row in log) / len(log)


@_by_sample
def variance_of_gradients(log, label):
    total = 0.0
    for c in range(len(log[0])):
        gradient = [row[c] for row in log]
        mean = added(gradient) / len(log)
        total += math.sqrt(added((g - mean) * (g - mean) for g in gradient) / len(log))
    return total / len(log[0])


def grand(log, labels, features):
    out = []
    for rows, label, hidden in zip(
        np.asarray(log).tolist(), labels, np.asarray(features).tolist(), strict=True
    ):
        total = 0.0
        for row, h in zip(rows, hidden, strict=True):
            error = math.sqrt(added((p - (c == label)) * (p - (c == label)) for c, p in enumerate(row)))
            total += error * math.sqrt(added(x * x for x in h))
        out.append(total / len(rows))
    return np.array(out).astype(np.float32)
