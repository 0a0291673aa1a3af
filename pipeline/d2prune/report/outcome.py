"""Why a sample was kept, dropped or rejected, in plain English."""

from d2prune.inputs import rejects

CUT_OFF = "cut-off"
"""Reason of a sample that the cut-off on a score removed before the graph was built."""

REASON_MEANINGS = {
    **rejects.MEANINGS,
    "below-budget": "the selection score is below the threshold",
    CUT_OFF: "removed by the cut-off on a score, before the graph was built",
}


def describe_outcome(reason: str, forward_score: float | None, threshold: float | None, method: str) -> str:
    """Whether a sample was kept, and if not, why.

    Args:
        reason: the decision's.
        forward_score: the decision's; None if the sample was not ranked.
        threshold: the lowest selection score kept; None if nothing was kept.
        method: what ranked the pool; only D2 has suppression.
    """
    if reason == "kept":
        return "kept"
    if reason == CUT_OFF:
        return "dropped: removed by the cut-off before the graph was built"
    if method != "d2":
        return f"dropped: {method} ranked enough other samples higher"
    if threshold is None or forward_score is None or forward_score < threshold:
        return "dropped: forward score below threshold"
    return "dropped: suppressed by neighbours picked earlier"
