"""Numbers and reasons in words: how the page and the terminal's table put them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from d2prune import store

DASH = "\u2013"

MEANINGS = {
    "image-missing": "no jpg, jpeg, png or webp member",
    "image-truncated": "the image ends too early",
    "image-undecodable": "the bytes are no image that can be read",
    "image-too-large": "more bytes or pixels than allowed; not decoded",
    "caption-missing": "no txt member",
    "caption-empty": "nothing but white space",
    "caption-too-large": "more bytes than allowed; not loaded",
    "tar-truncated": "the tar ends inside the sample",
    "tar-corrupt": "bytes that are no tar header were skipped",
    "tar-empty": "the file has no bytes",
    "embedding-invalid": "no embedding, or one of zeros or NaN",
    "score-missing": "no CLIP score in the table",
    "uid-invalid": "not 32 hex digits",
    "below-budget": "its selection score is below the threshold",
    "cut-off": "removed before the graph's say, by the cut-off on a score",
}


def number(value: float | None, digits: int = 3) -> str:
    """A measured value; a dash where there is none."""
    if value is None or not np.isfinite(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", "\u2212")


def score(difficulty: float | None, offset: float) -> str:
    """A score by its difficulty: what lay below the offset's zero was raised to it, and is not stored as it was."""
    own = number(None if difficulty is None else difficulty - offset)
    return f"\u2264 {own}" if difficulty == 0 else own


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in per cent, with a space that does not break; a dash where there is none."""
    return DASH if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}\u00a0%"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, two figures each."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def recall(facts: Mapping[str, Any]) -> str:
    """The graph's recall with its 95 % interval."""
    if facts.get("recall") is None:
        return "not measured"
    value = number(facts["recall"])
    if facts.get("recall_low") is None or facts.get("recall_high") is None:
        return value
    return f"{value} (95\u00a0% interval {number(facts['recall_low'])} to {number(facts['recall_high'])})"


def parameter(value: Any) -> str:
    """A parameter's value for people: URLs without secrets, long lists shortened."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {parameter(inner)}" for name, inner in value.items()) or "none"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(parameter(inner) for inner in value) or "none"
    else:
        text = "none" if value is None else str(value)
        text = store.redact(text) if "://" in text else text
    return text if len(text) <= 200 else text[:199] + "\u2026"
