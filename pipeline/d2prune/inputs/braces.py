"""Brace expansion as in bash, so that `{00000..01279}` means the same in a file, a shell and an API call."""

import re

import bracex

from d2prune.errors import UserError
from d2prune.store import redact

MAX_NAMES = 10_000_000
MAX_BRACES = 200
"""Of one item; bracex recurses once or twice for each."""

_SHOWN = 60


def expand_braces(pattern: str) -> list[str]:
    r"""Expand `{a,b}` and `{00000..00012}` (also nested, descending or with a step), in bash's order.

    Numbers are zero-padded to the wider bound if either bound has leading zeros. Braces without a
    comma or a range are left unchanged, and so is a brace after a backslash; backslashes are kept.

    Raises:
        UserError: an unbalanced brace (bash would keep it), more than 200 braces, or more than ten
            million results.
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    _check_braces(pattern)
    try:
        return bracex.expand(pattern, keep_escapes=True, limit=MAX_NAMES)
    except (bracex.ExpansionLimitException, RecursionError) as error:
        raise UserError(f"input {_shorten(pattern)}: expands to more than {MAX_NAMES} names") from error


def _check_braces(pattern: str) -> None:
    depth = count = 0
    for token in re.findall(r"\\.|[{}]", pattern, re.DOTALL):
        depth += (token == "{") - (token == "}")
        count += token == "{"
        if depth < 0:
            raise UserError(
                rf"input {_shorten(pattern)}: found '}}' without '{{'; write \}} for a brace in a name"
            )
    if count > MAX_BRACES:
        raise UserError(f"input {_shorten(pattern)}: found {count} braces; expected at most {MAX_BRACES}")
    if depth:
        raise UserError(
            rf"input {_shorten(pattern)}: found '{{' without '}}'; write \{{ for a brace in a name"
        )


def _shorten(pattern: str) -> str:
    text = redact(pattern)
    return text if len(text) <= 4 * _SHOWN else f"{text[:_SHOWN]}...{text[-_SHOWN:]}"
