"""Means over seeds, and paired differences with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Student's t for 95 %, two-sided, by degrees of freedom from 1.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences with its 95 % interval; the interval is infinite for one pair.

    Attributes:
        mean: of the differences.
        margin: half the width of the interval.
        pairs: number of differences.
    """

    mean: float
    margin: float
    pairs: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero, else 0."""
        return 0 if abs(self.mean) <= self.margin else (1 if self.mean > 0 else -1)


def paired(of: Mapping[int, float], against: Mapping[int, float]) -> Difference:
    """Return the difference of two methods over the seeds that both have.

    Args:
        of: seed -> figure of a method.
        against: the same of the method it is compared with.

    Raises:
        ValueError: they have no seed in common.
    """
    seeds = sorted(of.keys() & against.keys())
    if not seeds:
        raise ValueError("expected a common seed")
    differences = np.array([of[seed] - against[seed] for seed in seeds])
    if len(seeds) == 1:
        return Difference(float(differences[0]), float("inf"), 1)
    freedom = min(len(seeds) - 1, len(_T))
    margin = _T[freedom - 1] * float(differences.std(ddof=1)) / len(seeds) ** 0.5
    return Difference(float(differences.mean()), margin, len(seeds))


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample deviation; the deviation of one value is 0."""
    array = np.array(values)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0
