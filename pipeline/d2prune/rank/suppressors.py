"""Who suppressed whom, by name: members of the ranking ask each other for the uids of their samples' suppressors.

A sample's suppressor may lie anywhere in the pool, and only its owner has read its uid. So each
member asks every owner (itself included) for the distinct positions that it needs, is answered in
that order, and names its samples part by part. Memory: the uids of a member's own parts, and at
most as many answers as it has samples; never the pool's.

Pure functions of arrays. N own samples, W distinct suppressors of theirs.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.partition_layout import distinct

Int64s = npt.NDArray[np.int64]

NAMES = pa.large_string()
"""Of uids in memory: the offsets of `pa.string()` end at 2 GiB, that is 67 million uids."""


def questions(suppressor_N: Int64s, starts: Int64s) -> dict[int, Int64s]:
    """What to ask of whom: distinct canonical positions, ascending, by owner.

    Args:
        suppressor_N: int64 [N], canonical positions; -1: none.
        starts: int64 [P+1], first position of each of P owners, and the end.
    """
    wanted_W = _distinct(suppressor_N)
    bounds = np.searchsorted(wanted_W, starts)
    return {owner: wanted_W[lo:hi] for owner, (lo, hi) in enumerate(itertools.pairwise(bounds)) if lo < hi}


def answers(
    questions: Mapping[int, Int64s], uids: pa.LargeStringArray, start: int
) -> dict[int, pa.LargeStringArray]:
    """The uids that each one asks for, in the order of its question.

    Args:
        questions: canonical positions by asker, all of them among the own samples.
        uids: of the own samples.
        start: canonical position of the first.
    """
    return {asker: uids.take(pa.array(position_W - start)) for asker, position_W in questions.items()}


class Suppressors:
    """The names of all suppressors of a member's samples."""

    def __init__(self, suppressor_N: Int64s, answers: Mapping[int, pa.LargeStringArray]) -> None:
        """`answers` by owner, to the `questions` about the same suppressors."""
        self._suppressor_N, self._wanted_W = suppressor_N, _distinct(suppressor_N)
        self._names = pa.concat_arrays([pa.array([], NAMES), *(answers[owner] for owner in sorted(answers))])

    def uids(self, rows: slice) -> pa.StringArray:
        """Of some of the samples; null where nobody suppressed one."""
        position_M = self._suppressor_N[rows]
        place_M = np.searchsorted(self._wanted_W, position_M)
        return self._names.take(pa.array(place_M, mask=position_M < 0)).cast(pa.string())


def _distinct(suppressor_N: Int64s) -> Int64s:
    return distinct(suppressor_N[suppressor_N >= 0])
