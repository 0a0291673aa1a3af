"""Brace expansion, so that `{00000..01279}` means the same in a file, a shell and an API call. Pure text."""

import itertools
import re

from d2prune.errors import UserError

_MAX_EXPANSIONS = 10_000_000
_RANGE = re.compile(r"^(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?$")


def expand_braces(pattern: str) -> list[str]:
    """Expands `{a,b}` and `{00000..00012}` (also with a step, descending, and nested), in the order bash gives.

    Numbers keep the width of the wider bound if either is written with leading zeros. Braces
    without a comma or a range stand for themselves.

    Raises:
        UserError: a brace has no partner, or there would be more than ten million results.
    """
    return list(_expand(pattern, pattern))


def _expand(text: str, pattern: str) -> list[str]:
    start = text.find("{")
    if start < 0:
        if "}" in text:
            raise UserError(f"input {pattern}: '}}' without '{{'")
        return [text]
    if "}" in text[:start]:
        raise UserError(f"input {pattern}: '}}' without '{{'")
    end, commas = _partner(text, start, pattern)
    body = text[start + 1 : end]
    tails = _expand(text[end + 1 :], pattern)
    numbers = _RANGE.match(body)
    if commas:
        cuts = [start, *commas, end]
        parts = [text[a + 1 : b] for a, b in itertools.pairwise(cuts)]
        heads = [item for part in parts for item in _expand(part, pattern)]
    elif numbers:
        heads = _numbers(numbers[1], numbers[2], numbers[3], pattern)
    else:
        heads = [f"{{{inner}}}" for inner in _expand(body, pattern)]
    if len(heads) * len(tails) > _MAX_EXPANSIONS:
        raise UserError(f"input {pattern}: the braces expand to more than {_MAX_EXPANSIONS} names")
    return [f"{text[:start]}{head}{tail}" for head in heads for tail in tails]


def _partner(text: str, start: int, pattern: str) -> tuple[int, list[int]]:
    depth = 0
    commas: list[int] = []
    for at in range(start, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at, commas
        elif text[at] == "," and depth == 1:
            commas.append(at)
    raise UserError(f"input {pattern}: '{{' without '}}'")


def _numbers(first: str, last: str, step: str | None, pattern: str) -> list[str]:
    low, high = int(first), int(last)
    stride = abs(int(step)) if step else 1
    if stride == 0 or abs(high - low) // stride >= _MAX_EXPANSIONS:
        raise UserError(f"input {pattern}: {{{first}..{last}}} is a range of too many names")
    padded = any(re.match(r"-?0\d", bound) for bound in (first, last))
    width = max(len(first), len(last)) if padded else 0
    down = low > high
    values = range(low, high - 1 if down else high + 1, -stride if down else stride)
    return [f"{value:0{width}d}" if width else str(value) for value in values]
