"""Values as text, for the page and for the summary in the terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from d2prune import store

DASH = "\u2013"
_MINUS = "\u2212"
_ELLIPSIS = "\u2026"
_MAX_PARAMETER_LENGTH = 200


def number(value: float | None, digits: int = 3) -> str:
    """A measured value; a dash if there is none."""
    if value is None or not np.isfinite(value):
        return DASH
    return f"{value:.{digits}f}".replace("-", _MINUS)


def distinct_numbers(one: float, other: float) -> tuple[str, str]:
    """Two different values with as many digits as tell them apart, at least 3."""
    for digits in range(3, 16):
        texts = number(one, digits), number(other, digits)
        if texts[0] != texts[1]:
            break
    return texts


def score(difficulty: float | None, offset: float, is_clamped: bool = True) -> str:
    """A score, from the difficulty stored for it.

    Args:
        difficulty: max(score + offset, 0).
        offset: what was added to the score.
        is_clamped: whether scores may have been below -offset. Then a difficulty of 0 gives only an
            upper bound of the score; with `score.offset: auto` it gives the lowest score itself.
    """
    value = number(None if difficulty is None else difficulty - offset)
    return f"\u2264 {value}" if difficulty == 0 and is_clamped else value


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage; a dash if there is none."""
    return DASH if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}%"


def duration(seconds: float) -> str:
    """A duration in its two largest units, such as `1 min 39 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def recall(facts: Mapping[str, Any]) -> str:
    """The graph's recall with its 95% confidence interval."""
    if facts.get("recall") is None:
        return "not measured"
    value = number(facts["recall"])
    if facts.get("recall_low") is None or facts.get("recall_high") is None:
        return value
    return f"{value} (95% interval {number(facts['recall_low'])} to {number(facts['recall_high'])})"


def parameter(value: Any) -> str:
    """A parameter's value: URLs without secrets, long values shortened."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}: {parameter(inner)}" for name, inner in value.items()) or "none"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(parameter(inner) for inner in value) or "none"
    else:
        text = "none" if value is None else str(value)
        text = store.redact(text) if "://" in text else text
    limit = _MAX_PARAMETER_LENGTH
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS
