"""The files that an item of `input` names: by a folder, by wildcards, or one by one.

Unlike `store.list_files`, which lists d2prune's own folders, symbolic links to folders are followed
and hidden names are left out (`store.patterns`).
"""

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from d2prune.errors import UserError
from d2prune.redaction import redact
from d2prune.store import patterns, retries
from d2prune.store.filesystem import is_local, open_filesystem
from d2prune.store.listing import FileInfo, info, list_s3, list_with_fsspec, to_local_info
from d2prune.store.local_listing import LocalEntry, walk
from d2prune.store.retries import request, retrying
from d2prune.store.urls import S3_SCHEMES

_WEB_SCHEMES = ("http://", "https://")

# A server may make up pages without end.
_MAX_LINKS = 1_000_000

_Names = list[tuple[str, FileInfo]]


def find_files(text: str, suffixes: Sequence[str]) -> list[FileInfo]:
    """The files below a folder, or those that a text with wildcards matches, sorted by URL.

    Args:
        text: an item of `input` without braces.
        suffixes: in lower case. A link that leads nowhere, a FIFO, or a name that is not UTF-8 is
            an error if it has one of these, and left out otherwise.

    Returns:
        The files; an empty list if there is none, or no folder.

    Raises:
        UserError: a file that would be read is not one, or the listing is not allowed.
    """
    levels = None
    root = patterns.unquote(text)
    if patterns.has_wildcard(text):
        root, levels = patterns.split_root(text)
    matches = _compile(levels)
    try:
        if root.startswith(S3_SCHEMES):
            beginning = _read_beginning(levels[0]) if levels else ""
            found = [pair for pair in list_s3(root, beginning) if matches(pair[0])]
        elif is_local(root):
            found = _find_local(root, levels, matches, suffixes)
        elif root.startswith(_WEB_SCHEMES):
            found = _find_on_web(root, _choose_folders(levels), matches, suffixes)
        else:
            found = [pair for pair in list_with_fsspec(root, _depth(levels)) if matches(pair[0])]
    except FileNotFoundError:
        return []
    return sorted((file for _, file in found), key=lambda file: file.url)


def look_up(urls: Sequence[str]) -> dict[str, FileInfo]:
    """Ask for objects by name, many at a time; absent ones are left out.

    Raises:
        UserError: one is not a file.
    """
    if len(urls) <= 1:
        return {url: file for url in urls if (file := _look_up_one(url)) is not None}
    with ThreadPoolExecutor(min(len(urls), retries.requests())) as threads:
        found = zip(urls, threads.map(_look_up_one, urls), strict=True)
        return {url: file for url, file in found if file is not None}


def has_listings(url: str) -> bool:
    """Whether the store of `url` may be asked which files it has; web servers seldom can."""
    return not url.startswith(_WEB_SCHEMES)


def _look_up_one(url: str) -> FileInfo | None:
    try:
        return info(url)
    except FileNotFoundError:
        if is_local(url) and os.path.islink(open_filesystem(url)[1]):
            raise UserError(f"{redact(url)}: found a symbolic link that cannot be followed") from None
        return None


def _compile(levels: Sequence[str] | None) -> Callable[[str], bool]:
    """Whether a name, relative to the folder, is one of the files asked for."""
    if levels is None:
        return lambda name: not any(map(patterns.is_hidden, name.split("/")))
    pattern = patterns.compile_levels(levels)
    return lambda name: pattern.fullmatch(name) is not None


def _depth(levels: Sequence[str] | None) -> int | None:
    return None if levels is None or "**" in levels else len(levels)


def _read_beginning(level: str) -> str:
    """What the names that a level matches begin with."""
    return patterns.unquote(re.split(r"[\\*?]", level, maxsplit=1)[0])


@retrying
def _find_local(
    root: str, levels: Sequence[str] | None, matches: Callable[[str], bool], suffixes: Sequence[str]
) -> _Names:
    path, enter = open_filesystem(root)[1], _choose_folders(levels)
    entries: list[LocalEntry] = []
    with request(root), contextlib.suppress(NotADirectoryError):
        entries = [entry for entry in walk(path, enter, follow=True) if matches(entry.name)]
    for entry in entries:
        if entry.name.lower().endswith(tuple(suffixes)):
            _check_readable(entry)
    files = ((entry, entry.file_status) for entry in entries)
    return [(entry.name, to_local_info(entry.path, status)) for entry, status in files if status]


def _choose_folders(levels: Sequence[str] | None) -> Callable[[str], bool]:
    """Which folders below the root to list."""
    if levels is None:
        return lambda name: not patterns.is_hidden(name.rsplit("/", 1)[-1])
    if "**" in levels:
        return lambda name: True
    beginnings = [patterns.compile_levels(levels[: index + 1]) for index in range(len(levels) - 1)]

    def enter(name: str) -> bool:
        depth = name.count("/")
        return depth < len(beginnings) and beginnings[depth].fullmatch(name) is not None

    return enter


def _check_readable(entry: LocalEntry) -> None:
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"input {os.fsencode(entry.path)!r}: the name is not UTF-8; rename the file"
        ) from None
    if entry.file_status is None:
        raise UserError(f"input {entry.path}: found {entry.kind}; expected a file")


def _find_on_web(
    root: str, enter: Callable[[str], bool], matches: Callable[[str], bool], suffixes: Sequence[str]
) -> _Names:
    """Files that pages of links name, asked for one by one: a page has no sizes and versions."""
    base = f"{root.rstrip('/')}/"
    pending, seen, urls = [base], {base}, []
    while pending:
        for link in sorted(_read_links(pending.pop())):
            name = link.removeprefix(base).rstrip("/")
            if not link.startswith(base) or link in seen:
                continue
            seen.add(link)
            if link.endswith("/"):
                if enter(name) and len(seen) < _MAX_LINKS:
                    pending.append(link)
            elif matches(name) and name.lower().endswith(tuple(suffixes)):
                urls.append(link)
    return [(url.removeprefix(base), file) for url, file in look_up(urls).items()]


@retrying
def _read_links(url: str) -> list[str]:
    filesystem, path = open_filesystem(url)
    with request(url):
        return [str(link) for link in filesystem.ls(path, detail=False)]
