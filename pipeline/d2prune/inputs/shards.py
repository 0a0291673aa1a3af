"""Find the tars that `input` of the configuration names, as an ordered list.

The order is canonical: it decides every tie downstream. Folders and globs are in natural order
(digits compare as numbers), braces and lists in the given order. No tar is opened here.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.braces import expand_braces
from d2prune.store import FileInfo, artifacts

# Up to this many named files of one folder are looked up one by one; for more, the folder is listed once.
_MAX_LOOKUPS = 8
_MAX_LISTED_URLS = 3


@dataclass(frozen=True)
class TarShard:
    """One input tar.

    Attributes:
        url: its URL.
        name: unique in the pool; the value of the `shard` column.
        size: in bytes.
        version: see `FileInfo.version`.
    """

    url: str
    name: str
    size: int
    version: str


def expand_input(given: str | Sequence[str]) -> list[TarShard]:
    """Find the tars that `input` of the configuration names.

    Args:
        given: a folder (searched recursively), a glob (`*`, `?`), names with braces, or a list of
            these.

    Returns:
        The shards in canonical order.

    Raises:
        UserError: nothing given, a name that does not exist or is not a tar, no tar matched, or the
            same tar twice.
        InfrastructureError: the storage cannot be reached.
    """
    patterns = [given] if isinstance(given, str) else list(given)
    if not patterns or not all(patterns):
        raise UserError("input: expected a folder, a glob, names with braces, or a list of them; got nothing")
    files: list[FileInfo] = []
    for pattern in patterns:
        files.extend(_find_tars(pattern))
    duplicates = [url for url, count in Counter(file.url for file in files).items() if count > 1]
    if duplicates:
        raise UserError(f"input: {_format_urls(duplicates)} would be read twice")
    names = _shorten_names([store.redact(file.url) for file in files])
    return [
        TarShard(url=file.url, name=name, size=file.size, version=file.version)
        for file, name in zip(files, names, strict=True)
    ]


def pool_identity(shards: Sequence[TarShard]) -> str:
    """Return a fingerprint of the pool: names, sizes, versions and order. No URLs, since a pool may move."""
    return artifacts.fingerprint([(shard.name, shard.size, shard.version) for shard in shards])


def _find_tars(pattern: str) -> list[FileInfo]:
    found: list[FileInfo] = []
    named: list[str] = []
    for url in expand_braces(pattern):
        if is_pattern(url) or not _is_tar(url):
            found.extend(find_named_files(named, pattern))
            named = []
            found.extend(_list_tars(url))
        else:
            named.append(url)
    return found + find_named_files(named, pattern)


def _list_tars(url: str) -> list[FileInfo]:
    """List the tars of a glob or a folder, in natural order."""
    tars = [file for file in list_input(url) if _is_tar(file.url)]
    if tars:
        return sorted(tars, key=lambda file: natural_key(file.url))
    if is_pattern(url):
        raise UserError(f"input {store.redact(url)}: no tar matches")
    if store.is_folder(url):
        raise UserError(f"input {store.redact(url)}: no .tar in this folder")
    if store.exists(url):
        raise UserError(f"input {store.redact(url)}: expected a .tar file, a folder or a glob")
    raise UserError(f"input {store.redact(url)}: does not exist")


def find_named_files(urls: list[str], pattern: str) -> list[FileInfo]:
    """Look up files by name, in the given order.

    Args:
        urls: of the files.
        pattern: that names them, for the error message.

    Raises:
        UserError: a file does not exist.
    """
    by_folder: dict[str, list[str]] = {}
    for url in urls:
        by_folder.setdefault(posixpath.dirname(url), []).append(url)
    known: dict[str, FileInfo] = {}
    for folder, members in by_folder.items():
        if len(members) > _MAX_LOOKUPS:
            listed = {posixpath.basename(file.url): file for file in store.list_files(folder, "*")}
            known.update(
                (url, listed[name]) for url in members if (name := posixpath.basename(url)) in listed
            )
        else:
            for url in members:
                try:
                    known[url] = store.info(url)
                except FileNotFoundError:
                    continue
    absent = [url for url in urls if url not in known]
    if absent:
        of = "" if absent == [pattern] else f" (of {len(urls)} named by {store.redact(pattern)})"
        raise UserError(f"input {_format_urls(absent)}: does not exist{of}")
    return [known[url] for url in urls]


def is_pattern(url: str) -> bool:
    """Return whether a URL of `input` is a glob and not the name of a file or folder."""
    return "*" in url or "?" in url


def list_input(url: str) -> list[FileInfo]:
    """List the files that a glob matches, or those below a folder."""
    return store.glob_files(url) if is_pattern(url) else store.list_files(url)


def _is_tar(url: str) -> bool:
    return url.lower().endswith(".tar")


def natural_key(url: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that compares the digits in names as numbers."""
    parts = re.split(r"([0-9]+)", url)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], url


def _shorten_names(urls: list[str]) -> list[str]:
    """Return unique names, the shortest of: the file without .tar; with its folders; that with .tar."""
    folders = [url.split("/")[:-1] for url in urls]
    shared = 0
    while folders and all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    relative = ["/".join(url.split("/")[shared:]) for url in urls]
    choices: list[Callable[[str], str]] = [lambda name: posixpath.basename(name)[:-4], lambda name: name[:-4]]
    for choice in choices:
        names = [choice(name) for name in relative]
        if len(set(names)) == len(names):
            return names
    return relative


def _format_urls(urls: Sequence[str]) -> str:
    shown = ", ".join(store.redact(url) for url in urls[:_MAX_LISTED_URLS])
    return shown if len(urls) <= _MAX_LISTED_URLS else f"{shown} and {len(urls) - _MAX_LISTED_URLS} more"
