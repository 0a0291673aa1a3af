r"""The syntax of `input`: lists, braces, wildcards, and the backslash that quotes them.

    a.tar::b.tar     a list of two items
    {00..12}, {a,b}  braces, expanded as in bash (`inputs.braces`)
    *  ?  **         wildcards: of one level, one character, any number of levels
    \X               X itself, where X is one of \ * ? { } , : [ ]

All other characters stand for themselves, `[` and `]` included, and so does a backslash before
another character. In `http://` and `https://` URLs, `?key=value` begins a query, in which nothing
is special. Only `input` has this syntax: every other location is literal.
"""

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"\\[\\*?{},:\[\]]|::|.", re.DOTALL)
_QUOTED = re.compile(r"\\([\\*?{},:\[\]])")
_QUERY = re.compile(r"(https?://[^?]*)(\?[^=?&/]+=.*)", re.DOTALL)
_SPECIAL = ("*", "?", "{", "}", "::")

# Files that Spark, Dask and Databricks write beside their data, and Spark's folder of unfinished files.
_MARKER = r"_SUCCESS|_metadata|_common_metadata|_temporary|_started_\d*|_committed_\d*"
_HIDDEN_NAME = rf"\.|(?:{_MARKER})(?:\.(?:parquet|npz|npy|tar))?(?:/|$)"
_HIDDEN = re.compile(_HIDDEN_NAME)


def split_query(url: str) -> tuple[str, str]:
    """The URL without its query, and the query with its `?`; only URLs of the web have one."""
    match = _QUERY.fullmatch(url)
    return (match[1], match[2]) if match else (url, "")


def split_list(text: str) -> list[str]:
    """The items between `::`, each with its quotes."""
    if "::" not in text:
        return [text]
    items = [""]
    for token in _TOKEN.findall(text):
        if token == "::":
            items.append("")
        else:
            items[-1] += token
    return items


def has_wildcard(text: str) -> bool:
    """Whether an item names files by `*` or `?`."""
    if "*" not in text and "?" not in text:
        return False
    return any(token in ("*", "?") for token in _TOKEN.findall(split_query(text)[0]))


def has_special(text: str) -> bool:
    """Whether a text means anything but itself."""
    path = split_query(text)[0]
    return any(mark in path for mark in _SPECIAL) and any(token in _SPECIAL for token in _TOKEN.findall(path))


def quote(name: str) -> str:
    """The text that names exactly `name`."""
    path, query = split_query(name)
    # A backslash needs a quote only before a character that it would quote.
    path = re.sub(r"\\(?=[\\*?{},:\[\]]|$)", r"\\\\", path)
    path = re.sub(r"([*?{},])", r"\\\1", path)
    return path.replace("::", r"\:\:") + query


def unquote(text: str) -> str:
    """The name that a text without wildcards and braces stands for."""
    return _QUOTED.sub(r"\1", text) if "\\" in text else text


def split_root(pattern: str) -> tuple[str, list[str]]:
    """The folder below which a pattern can match, and the pattern's levels below it."""
    levels = split_query(pattern)[0].split("/")
    first = next(index for index, level in enumerate(levels) if has_wildcard(level))
    root = "/".join(map(unquote, levels[:first]))
    if not root:
        root = "/" if first else "."
    return root, levels[first:]


def compile_levels(levels: Sequence[str]) -> re.Pattern[str]:
    """A regular expression for names below the root, relative to it.

    A wildcard matches no hidden name (`is_hidden`); a level without wildcards matches any.
    """
    parts = []
    for index, level in enumerate(levels):
        last = index == len(levels) - 1
        if level == "**":
            part = rf"(?:(?!{_HIDDEN_NAME})[^/]+/)*"
            parts.append(part + (rf"(?!{_HIDDEN_NAME})[^/]+" if last else ""))
            continue
        shown = f"(?!{_HIDDEN_NAME})" if has_wildcard(level) else ""
        parts.append(shown + "".join(map(_translate, _TOKEN.findall(level))) + ("" if last else "/"))
    return re.compile("".join(parts), re.DOTALL)


def _translate(token: str) -> str:
    return {"*": "[^/]*", "?": "[^/]"}.get(token) or re.escape(unquote(token))


def is_hidden(name: str) -> bool:
    """Whether folders and wildcards leave a file or folder out.

    These are names that begin with a dot (AppleDouble's `._x.tar`, `.DS_Store`, temporary files)
    and the markers of Spark, Dask and Databricks (`_SUCCESS`, `_metadata`, `_temporary`).

    Args:
        name: without its folder.
    """
    return _HIDDEN.match(name) is not None
