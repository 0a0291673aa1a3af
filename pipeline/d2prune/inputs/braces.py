"""Brace expansion as in bash, so that `{00000..01279}` means the same in a file, a shell and an API call."""

import bracex

from d2prune.errors import UserError

_MAX_NAMES = 10_000_000


def expand_braces(pattern: str) -> list[str]:
    """Expand `{a,b}` and `{00000..00012}` (also nested, descending or with a step), in bash's order.

    Numbers are zero-padded to the wider bound if either bound has leading zeros. Braces without a
    comma or a range are left unchanged.

    Raises:
        UserError: an unbalanced brace (bash would keep it), or more than ten million results.
    """
    _check_balanced(pattern)
    try:
        return bracex.expand(pattern, keep_escapes=True, limit=_MAX_NAMES)
    except bracex.ExpansionLimitException as error:
        raise UserError(f"input {pattern}: expands to more than {_MAX_NAMES} names") from error


def _check_balanced(pattern: str) -> None:
    depth = 0
    for character in pattern:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            raise UserError(f"input {pattern}: found '}}' without '{{'")
    if depth:
        raise UserError(f"input {pattern}: found '{{' without '}}'")
