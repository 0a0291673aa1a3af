r"""The items of `input`, parsed: lists are split, braces expanded, and existing names quoted.

An item is a folder, a name, or a pattern; `store.patterns` has the syntax. A name that exists as
it is written is meant literally, so `what?/00000.tar` is the file in the folder `what?` if there is
such a folder, and a pattern otherwise.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.braces import expand_braces
from d2prune.store import patterns

log = logging.getLogger(__name__)

_CHAINS = frozenset("blockcache filecache libarchive reference simplecache tar zip".split())
_LOCAL = frozenset(("file", "local"))
_OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs"))


@dataclass(frozen=True)
class Item:
    """One item of `input`.

    Attributes:
        text: as given, without the other items of a list.
        names: what its braces expand to, in order; folders, names and patterns, with their quotes.
    """

    text: str
    names: tuple[str, ...]


def parse_items(given: str | Sequence[str]) -> list[Item]:
    """Parse `input`.

    Raises:
        UserError: nothing is given, an item is empty, or its braces are not balanced.
    """
    texts = [given] if isinstance(given, str) else list(given)
    if not texts or not all(texts):
        raise UserError("input: expected a folder, a glob, names with braces, or a list of them; got nothing")
    items = []
    for text in texts:
        parts = patterns.split_list(_quote_existing(text))
        if len(parts) > 1:
            _check_list(text, parts)
            parts = [_quote_existing(part) for part in parts]
        for part in parts:
            _check_host(part)
        items += [Item(part, tuple(expand_braces(part))) for part in parts]
    return items


def _check_host(text: str) -> None:
    host = patterns.split_query(text)[0].partition("://")[2].partition("/")[0]
    if patterns.has_wildcard(host):
        raise UserError(
            f"input {store.redact(text)}: found a wildcard in the bucket or host; expected its name"
        )


def _check_list(text: str, parts: Sequence[str]) -> None:
    chain = next((part for part in parts if _names_chain(part)), None)
    if chain is not None:
        raise UserError(
            f"input {store.redact(text)}: found a chain of fsspec ({chain}); `::` separates the items of a "
            "list, and files inside other files are not supported"
        )
    if not all(parts):
        raise UserError(
            rf"input {store.redact(text)}: found an empty item beside `::`, which separates the items of a "
            r"list; write \:\: for a name that contains it"
        )


def _names_chain(part: str) -> bool:
    return part.partition("://")[0] in _CHAINS and not os.path.exists(part)


def _quote_existing(text: str) -> str:
    """Quote the levels that are special and exist as they are written.

    Looks at the first such level only, unless it exists: without it, none below it does.
    """
    scheme, separator, _ = text.partition("://")
    is_remote = bool(separator) and scheme not in _LOCAL
    if (is_remote and scheme not in _OBJECT_STORES) or not patterns.has_special(text):
        return text
    levels = text.split("/")
    # A scheme and an object store's bucket have no special characters.
    for index in range(3 if separator else 0, len(levels)):
        if not patterns.has_special(levels[index]):
            continue
        name = "/".join(patterns.unquote(level) for level in levels[: index + 1])
        if not _is_present(name, is_remote):
            break
        log.warning("input: %s exists and is read literally, not as a pattern", store.redact(name))
        levels[index] = patterns.quote(levels[index])
    return "/".join(levels)


def _is_present(name: str, is_remote: bool) -> bool:
    if not is_remote:
        return os.path.lexists(os.path.expanduser(name.removeprefix("file://").removeprefix("local://")))
    try:
        return store.exists(name) or store.is_folder(name)
    except UserError:
        # Not allowed to ask; the listing will report that.
        return False
