"""Why a sample was kept, dropped or rejected, in plain English."""

from d2prune.inputs import rejects
from d2prune.report import formatting
from d2prune.store.schemas import DUPLICATE, NEAR_DUPLICATE

CUT_OFF = "cut-off"
"""Reason of a sample that the cut-off on a score removed before the graph was built."""

BELOW_BUDGET = "below-budget"
"""Reason of a sample that was ranked and not kept."""

NOT_RANKED = (CUT_OFF, DUPLICATE, NEAR_DUPLICATE)
"""Reasons of samples that were dropped before the ranking and have no selection score."""

REASON_MEANINGS = {
    **rejects.MEANINGS,
    BELOW_BUDGET: "the selection score is below the threshold",
    CUT_OFF: "removed by the cut-off on a score, before the graph was built",
    DUPLICATE: "the image has the same bytes as a better sample's",
    NEAR_DUPLICATE: "a better sample is at least as similar as dedup.near",
}


def describe_outcome(
    reason: str,
    forward_score: float | None,
    threshold: float | None,
    method: str,
    keeper: str | None = None,
    cosine: float | None = None,
) -> str:
    """Whether a sample was kept, and if not, why.

    Args:
        reason: the decision's.
        forward_score: the decision's; None if the sample was not ranked.
        threshold: the lowest selection score kept; None if nothing was kept.
        method: what ranked the pool; only D2 has suppression.
        keeper: uid of the sample kept in place of a duplicate; None if it is not known.
        cosine: between a near-duplicate and its keeper; None if it is not known.
    """
    if reason == "kept":
        return "kept"
    if reason == CUT_OFF:
        return "dropped: removed by the cut-off before the graph was built"
    if reason in NOT_RANKED:
        similarity = "" if cosine is None else f", cosine {cosine:.3f}"
        return f"dropped: {reason} of {keeper or 'a better sample'}{similarity}"
    if method != "d2":
        return f"dropped: {method} ranked enough other samples higher"
    if threshold is None or forward_score is None:
        return "dropped: forward score below the threshold"
    if forward_score < threshold:
        score, limit = formatting.distinct_numbers(forward_score, threshold)
        return f"dropped: forward score {score} below the threshold {limit}"
    return "dropped: suppressed by neighbours picked earlier"
