"""The cut-off: samples with the lowest `drop_score` are excluded before the graph is built.

Drops the samples that `d2.budget.drop_mask` drops, for a pool stored in parts. Reads one score
column of the embed parts, several times, one part at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from d2prune.d2.budget import Threshold, count_ties, histogram, kept_in_part, select_threshold
from d2prune.parts.reader import Parts
from d2prune.scores.column import order_keys, read_score

OPTION = "select.drop_score"


@dataclass(frozen=True)
class CutOff:
    """Which samples of a pool are excluded.

    Attributes:
        score: name of the score.
        threshold: the samples kept, in terms of `order_keys`.
        ties_before: [P], samples exactly at the threshold in all parts before each part.
    """

    score: str
    threshold: Threshold
    ties_before: tuple[int, ...]

    def drop_mask(self, parts: Parts, part: int) -> npt.NDArray[np.bool_]:
        """Return which samples of a part are excluded, bool [N]."""
        key_N = order_keys(read_score(parts, [part], self.score, OPTION))
        return ~kept_in_part(key_N, self.threshold, self.ties_before[part])


def find_cut_off(parts: Parts, score: str, drop_fraction: float) -> CutOff:
    """Find the cut-off that drops the lowest `drop_fraction` of the pool; of equal scores, the later samples.

    Args:
        parts: the pool, with the units of the stages that the score is read from.
        score: name of the score.
        drop_fraction: in [0, 1).

    Raises:
        UserError: there is no such score, or a value is not finite.
    """

    def read_keys() -> Iterator[npt.NDArray[np.int64]]:
        for part in range(parts.spans.n_parts):
            yield order_keys(read_score(parts, [part], score, OPTION))

    def count(prefix: int, prefix_bits: int, bits: int) -> npt.NDArray[np.int64]:
        counts = np.zeros(1 << bits, np.int64)
        for key_M in read_keys():
            counts += histogram(key_M, prefix, prefix_bits, bits)
        return counts

    n_rows = len(parts)
    n_dropped = math.floor(n_rows * Fraction(repr(float(drop_fraction))))
    threshold = select_threshold(count, n_rows - n_dropped)
    ties = [count_ties(key_M, threshold) for key_M in read_keys()]
    return CutOff(score, threshold, tuple(int(before) for before in np.cumsum([0, *ties])[:-1]))
