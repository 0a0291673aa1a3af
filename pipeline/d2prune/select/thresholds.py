"""Selection thresholds: the exact scores at which the budget ends, in the pool or in each group.

Found by a few rounds of histograms over the parts of the ranking, read one at a time; the pool is
never sorted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d2prune.d2.budget import (
    Threshold,
    count_ties,
    histogram,
    quotas,
    select_threshold,
    size_of_fraction,
    threshold_of_score,
)
from d2prune.d2.fixed_point import SCALE
from d2prune.errors import UserError
from d2prune.parts.files import RANKS
from d2prune.parts.reader import Parts
from d2prune.select.groups import SampleGroups, read_groups
from d2prune.select.params import SelectParams

Int64s = npt.NDArray[np.int64]

# Label of the only group when the budget is not divided.
_WHOLE_POOL = ""


@dataclass(frozen=True)
class GroupThreshold:
    """The selection threshold of one group. Hashed into unit keys, field names included.

    Attributes:
        group: its label; "" if the pool is one group.
        threshold: over all parts.
        ties_before: int [P], for each part, how many of the group's samples at the threshold are in
            the parts before it.
    """

    group: str
    threshold: Threshold
    ties_before: tuple[int, ...]


@dataclass(frozen=True)
class SelectionThresholds:
    """The thresholds of a selection.

    Attributes:
        budget: number of samples that all groups keep together.
        groups: one threshold per group that keeps a sample.
    """

    budget: int
    groups: tuple[GroupThreshold, ...]


class _Scores:
    """Selection scores of the ranked samples, in the pool or in one group."""

    def __init__(self, parts: Parts, groups: SampleGroups | None) -> None:
        self._parts, self._groups = parts, groups

    def read(self, group: str) -> Iterator[Int64s]:
        """Yield the scores of a group, part by part."""
        for part in range(self._parts.spans.n_parts):
            # Not the whole file: the other columns are two thirds of it.
            table = self._parts.peek(part, RANKS, ["ranked", "selection_score"])
            member_M = table["ranked"].to_numpy()
            if self._groups is not None:
                member_M = member_M & (self._groups.codes[part] == self._groups.code_of[group])
            yield table["selection_score"].to_numpy()[member_M]

    def count(self, group: str) -> int:
        """Count the scores of a group."""
        return sum(len(score_M) for score_M in self.read(group))

    def count_ties(self, group: str, threshold: Threshold) -> GroupThreshold:
        """Complete a group's threshold with its ties in each part."""
        ties = [count_ties(score_M, threshold) for score_M in self.read(group)]
        return GroupThreshold(group, threshold, tuple(np.cumsum([0, *ties[:-1]]).tolist()))

    def select_highest(self, group: str, m: int) -> GroupThreshold:
        """Find the threshold that keeps the m highest scores of a group."""

        def total_histogram(prefix: int, prefix_bits: int, bits: int) -> Int64s:
            parts = (histogram(score_M, prefix, prefix_bits, bits) for score_M in self.read(group))
            return np.asarray(sum(parts), np.int64)

        return self.count_ties(group, select_threshold(total_histogram, m))


def find_thresholds(parts: Parts, params: SelectParams, ranked: int) -> SelectionThresholds:
    """Find the exact selection thresholds.

    With groups, each gets its share of the ranked samples by largest remainder.

    Args:
        parts: the pool, with the units of embed and rank.
        params: the budget. A fraction is of all embedded samples, whether or not they are ranked.
        ranked: number of ranked samples.

    Raises:
        UserError: the budget is larger than the number of ranked samples, no sample reaches the
            minimum score, or the column of groups does not exist.
    """
    if params.min_score is not None:
        return _find_by_score(_Scores(parts, None), params.min_score)
    if params.cut == "datacomp":
        return _find_by_datacomps_rule(_Scores(parts, None), params.fraction or 1.0, len(parts), ranked)
    budget = params.size or size_of_fraction(len(parts), params.fraction or 1.0)
    if budget > ranked:
        option = (
            f"select.size is {budget}" if params.size else f"select.fraction {params.fraction} is {budget}"
        )
        excluded = f"{len(parts) - ranked} were cut off or dropped as duplicates"
        raise UserError(f"{option} samples, but only {ranked} are ranked ({excluded})")
    if params.groups is None:
        threshold = _Scores(parts, None).select_highest(_WHOLE_POOL, budget)
        return SelectionThresholds(budget, (threshold,))
    groups = read_groups(parts, params.groups)
    scores = _Scores(parts, groups)
    labels = sorted(groups.code_of)
    shares = quotas([scores.count(label) for label in labels], budget)
    thresholds = (
        scores.select_highest(label, share) for label, share in zip(labels, shares, strict=True) if share
    )
    return SelectionThresholds(budget, tuple(thresholds))


def _find_by_datacomps_rule(
    scores: _Scores, fraction: float, embedded: int, ranked: int
) -> SelectionThresholds:
    """Keep every score of at least that at index int(N * fraction) of the falling order, counted from 0."""
    # A product of doubles, as in DataComp's baselines: 0.29 of 100 is 28.
    index = min(int(embedded * fraction), ranked - 1)
    lowest = scores.select_highest(_WHOLE_POOL, index + 1).threshold.score
    return _keep_above(scores, Threshold(lowest - 1, ties=0))


def _keep_above(scores: _Scores, threshold: Threshold) -> SelectionThresholds:
    budget = sum(int((score_M > threshold.score).sum()) for score_M in scores.read(_WHOLE_POOL))
    return SelectionThresholds(budget, (scores.count_ties(_WHOLE_POOL, threshold),))


def _find_by_score(scores: _Scores, min_score: float) -> SelectionThresholds:
    threshold = threshold_of_score(min_score)
    found = _keep_above(scores, threshold)
    if not found.budget:
        highest = max((int(score_M.max()) for score_M in scores.read(_WHOLE_POOL) if len(score_M)), default=0)
        raise UserError(
            f"select.min_score {min_score} keeps no sample: the highest score is {highest / SCALE:.6g}"
        )
    return found
