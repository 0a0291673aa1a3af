"""Why a sample was kept, dropped or rejected, in plain English."""

CUT_OFF = "cut-off"
"""Reason of a sample that the cut-off on a score removed before the graph was built."""

REASON_MEANINGS = {
    "image-missing": "no jpg, jpeg, png or webp member",
    "image-truncated": "the image data ends early",
    "image-undecodable": "not an image in a supported format",
    "image-too-large": "more bytes or pixels than allowed; not decoded",
    "image-crashed-decoder": "the image crashed the decoder twice",
    "image-timeout": "decoding took longer than embed.image_timeout, twice",
    "caption-missing": "no txt member",
    "caption-empty": "only white space",
    "caption-too-large": "more bytes than allowed; not loaded",
    "field-missing": "the json lacks a number declared in embed.fields",
    "tar-truncated": "the tar ends inside the sample",
    "tar-corrupt": "bytes that are not a tar header were skipped",
    "tar-empty": "the file is empty",
    "embedding-invalid": "no embedding, or one that is all zeros or not finite",
    "score-missing": "no CLIP score in the table",
    "uid-invalid": "the uid is not 32 hexadecimal digits",
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
