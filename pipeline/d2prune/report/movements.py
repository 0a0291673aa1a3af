"""Why a sample entered or left the selection since the run before: one reason each, from both decisions.

Direct causes come first: another sample with its uid, a new neighbour whose message alone keeps it
below the threshold, or the loss of the neighbour whose message alone kept it below. Then what
explains it without any change of its score: the threshold moved. What is left has another score,
because it gained or lost neighbours, gamma moved, or its neighbours' scores changed. Pure functions
of arrays; M samples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.d2.fixed_point import SCALE
from d2prune.report.outcome import CUT_OFF, NOT_RANKED
from d2prune.report.tally import exact_ranks, float_column, integer_column

COLUMNS = ("kept", "reason", "difficulty", "selection_score", "selection_fixed", "suppressor", "suppression")
"""Columns of the decisions that `explain` needs."""

NEW, REMOVED = "new", "removed"
SETTINGS, DISPLACED, FREED, EXCLUDED, OWN_SCORE = "settings", "displaced", "freed", "excluded", "own-score"
REPLACED = "replaced"
THRESHOLD, METHOD, NEIGHBOURS, GAMMA, INDIRECT = "threshold", "method", "neighbours", "gamma", "indirect"

MEANINGS = {
    NEW: ("New sample", "it was not in the earlier pool"),
    REMOVED: ("Removed sample", "it is no longer in the pool"),
    SETTINGS: ("Other settings", "the runs have different settings, so no sample is named as the cause"),
    REPLACED: ("Replaced sample", "its shard now holds another sample with its uid, and another score"),
    DISPLACED: (
        "New near neighbour",
        "a new sample suppresses it most, or is its duplicate; without that message it would be kept",
    ),
    FREED: (
        "Suppressor removed",
        "the sample that suppressed it most, or was its keeper, left the pool; without that message its "
        "earlier score reaches the threshold",
    ),
    EXCLUDED: ("Cut-off or duplicates", "it is ranked now and was not before, or the reverse"),
    OWN_SCORE: ("Own score", "its score before neighbours count depends on the pool, and changed"),
    THRESHOLD: ("Threshold moved", "its earlier score would have the same outcome today"),
    METHOD: ("Ranking", "the method ranked the changed pool anew"),
    NEIGHBOURS: ("Other neighbours", "it gained or lost neighbours in the graph"),
    GAMMA: (
        "Gamma or offset moved",
        "its neighbours are the same, but gamma follows the median distance in the pool, and score.offset "
        "its lowest score",
    ),
    INDIRECT: ("Neighbours' scores", "its neighbours are the same, but their scores changed"),
}
"""Reason -> its name and what it means, in the order in which the page lists them."""

_ROUNDING = 1e-6

Mask = NDArray[np.bool_]
Reasons = NDArray[np.str_]


@dataclass(frozen=True)
class Moved:
    """M samples that both pools have and that only one of the runs keeps.

    Attributes:
        kept_now: bool [M]; the earlier run decided the opposite.
        before: COLUMNS of the earlier decisions.
        now: COLUMNS of the present decisions.
        threshold: int64 [M], the lowest selection score kept now of each sample's group.
        offsets: what was added to every score, then and now.
        suppressor_gone: bool [M], whether the earlier suppressor or keeper left the pool.
        suppressor_new: bool [M], whether the present one is new.
        replaced: bool [M], whether another sample has its uid now.
    """

    kept_now: Mask
    before: pa.Table
    now: pa.Table
    threshold: NDArray[np.int64]
    offsets: tuple[float, float]
    suppressor_gone: Mask
    suppressor_new: Mask
    replaced: Mask


def explain(
    moved: Moved, method: str, gamma_moved: bool, has_other_neighbours: Callable[[Mask], Mask]
) -> Reasons:
    """The reason of each sample, str [M].

    Args:
        moved: the samples.
        method: what ranked the pool.
        gamma_moved: whether one of the gammas, or the offset, differs between the runs.
        has_other_neighbours: of some of the samples, bool [M], whether each gained or lost neighbours; bool,
            one per sample asked for. Called once at most, as it reads the graph.
    """
    reasons = np.full(len(moved.kept_now), "", "<U16")
    left = ~moved.kept_now
    before_ranked, now_ranked = _is_ranked(moved.before), _is_ranked(moved.now)
    before_N, now_N = exact_ranks(moved.before), exact_ranks(moved.now)

    def settle(which: Mask, reason: str) -> None:
        reasons[which & (reasons == "")] = reason

    has_other_score = _has_other_score(moved)
    settle(moved.replaced & has_other_score, REPLACED)
    changed = before_ranked != now_ranked
    settle(changed & left & _is_duplicate(moved.now) & moved.suppressor_new, DISPLACED)
    settle(changed & ~left & _is_duplicate(moved.before) & moved.suppressor_gone, FREED)
    settle(changed, EXCLUDED)
    if method == "d2":
        without_N = _raise(now_N, moved.now)
        settle(left & moved.suppressor_new & (without_N >= moved.threshold), DISPLACED)
    settle(has_other_score, OWN_SCORE)
    if method != "d2":
        settle(reasons == "", THRESHOLD if method == "score" else METHOD)
        return reasons
    # By as much as all scores moved.
    before_N = before_N + round((moved.offsets[1] - moved.offsets[0]) * SCALE)
    without_N = _raise(before_N, moved.before)
    settle(~left & moved.suppressor_gone & (without_N >= moved.threshold), FREED)
    same_N = np.where(left, before_N <= moved.threshold, before_N >= moved.threshold)
    settle(same_N, THRESHOLD)
    open_N = reasons == ""
    if open_N.any():
        reasons[open_N] = np.where(
            has_other_neighbours(open_N), NEIGHBOURS, GAMMA if gamma_moved else INDIRECT
        )
    return reasons


def _has_other_score(moved: Moved) -> Mask:
    """Whether the score differs without its offset, bool [M]; difficulties are rounded to float32."""
    one, other = (
        float_column(side, "difficulty") - offset
        for side, offset in zip((moved.before, moved.now), moved.offsets, strict=True)
    )
    return np.asarray(np.abs(one - other) > _ROUNDING * np.maximum(1, np.abs(one)), bool)


def _raise(score_N: NDArray[np.int64], decisions: pa.Table) -> NDArray[np.int64]:
    """Scores without the strongest message, int64 [N], fixed point."""
    message_N = np.nan_to_num(float_column(decisions, "suppression"))
    # Beyond the range of scores, so that no sum overflows.
    return np.maximum(score_N, -(2**62)) + np.rint(message_N * SCALE).astype(np.int64)


def _is_ranked(decisions: pa.Table) -> Mask:
    return ~np.asarray(pc.is_in(decisions["reason"], value_set=pa.array(NOT_RANKED)).to_numpy(), bool)


def _is_duplicate(decisions: pa.Table) -> Mask:
    kinds = pa.array([reason for reason in NOT_RANKED if reason != CUT_OFF])
    return np.asarray(pc.is_in(decisions["reason"], value_set=kinds).to_numpy(), bool)


def positions_of_suppressors(decisions: pa.Table) -> NDArray[np.int64]:
    """Canonical positions of the strongest suppressors or of the keepers, int64 [M]; -1: none."""
    return integer_column(decisions, "suppressor", -1)
