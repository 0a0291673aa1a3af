"""The cut-off before the graph is built, over a pool that lies in parts: the same samples as `budget.drop_mask`.

Reads a score of embed's parts, a few times, one part at a time; gives the exact line between
dropped and kept.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from d2prune.d2.budget import Threshold, count_ties, histogram, kept_in_part, select_threshold
from d2prune.parts.files import SAMPLES
from d2prune.scores.column import read_score
from d2prune.store.artifacts import Receipt

OPTION = "select.drop_score"


@dataclass(frozen=True)
class CutOff:
    """Where the line runs.

    Attributes:
        score: name of the score.
        threshold: what is kept, in `_key`.
        ties_before: how many samples at the threshold lie before each part.
    """

    score: str
    threshold: Threshold
    ties_before: tuple[int, ...]

    def of_part(self, embed_folder: str, part: int, receipt: Receipt) -> npt.NDArray[np.bool_]:
        """Which samples of a part are left out, bool [N]."""
        key_N = _key(read_score(embed_folder, [receipt], self.score, OPTION))
        return ~kept_in_part(key_N, self.threshold, self.ties_before[part])


def find_cut_off(embed_folder: str, parts: Sequence[Receipt], score: str, drop_fraction: float) -> CutOff:
    """The line that drops the lowest `drop_fraction` of the pool, of equals the later; arguments as of the stage.

    Raises:
        UserError: there is no such score, or a value is not finite.
    """

    def keys() -> Iterator[npt.NDArray[np.int64]]:
        for receipt in parts:
            yield _key(read_score(embed_folder, [receipt], score, OPTION))

    def total(prefix: int, prefix_bits: int, bits: int) -> npt.NDArray[np.int64]:
        counts = np.zeros(1 << bits, np.int64)
        for key_M in keys():
            counts += histogram(key_M, prefix, prefix_bits, bits)
        return counts

    n_rows = sum(receipt.rows(SAMPLES) for receipt in parts)
    n_dropped = math.floor(n_rows * Fraction(repr(float(drop_fraction))))
    threshold = select_threshold(total, n_rows - n_dropped)
    ties = [count_ties(key_M, threshold) for key_M in keys()]
    return CutOff(score, threshold, tuple(int(before) for before in np.cumsum([0, *ties])[:-1]))


def _key(score_M: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Integers in the order of the scores; adding 0.0 makes the two zeros one."""
    bits = (score_M + np.float32(0.0)).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
