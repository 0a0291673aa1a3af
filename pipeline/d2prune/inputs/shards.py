"""What the user calls the input -> the ordered list of its shards.

The order is canonical: it decides every tie downstream. Folders and globs come in natural order
(digits compare as numbers), braces and lists in the order given. Nothing here reads a tar.
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

# Up to so many named files of one folder are asked for one by one; above, the folder is listed once.
_FEW_FILES = 8
_NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Shard:
    """One input tar. `name` is unique in the pool and goes into the `shard` column; `version` as `FileInfo.version`."""

    url: str
    name: str
    size: int
    version: str


def expand_input(given: str | Sequence[str]) -> list[Shard]:
    """Finds the tars that `input` of the configuration means.

    Args:
        given: a folder (searched with all below it), a glob (`*`, `?`), names with braces, or a list of such.

    Returns:
        The shards in canonical order.

    Raises:
        UserError: nothing given, a name that does not exist, a name that is no tar, no tar matched,
            the same tar twice.
        InfrastructureError: the storage cannot be reached.
    """
    patterns = [given] if isinstance(given, str) else list(given)
    if not patterns or not all(patterns):
        raise UserError("input: expected a folder, a glob, names with braces, or a list of them; got nothing")
    files: list[FileInfo] = []
    for pattern in patterns:
        files.extend(_find(pattern))
    twice = [url for url, count in Counter(file.url for file in files).items() if count > 1]
    if twice:
        raise UserError(f"input: {_some(twice)} would be read twice")
    names = _names([store.redact(file.url) for file in files])
    return [
        Shard(url=file.url, name=name, size=file.size, version=file.version)
        for file, name in zip(files, names, strict=True)
    ]


def pool_identity(shards: Sequence[Shard]) -> str:
    """A fingerprint of the whole pool: names, sizes, versions and order. Not the places: a pool may move."""
    return artifacts.fingerprint([(shard.name, shard.size, shard.version) for shard in shards])


def _find(pattern: str) -> list[FileInfo]:
    found: list[FileInfo] = []
    named: list[str] = []
    for url in expand_braces(pattern):
        if "*" in url or "?" in url or not _is_tar(url):
            found.extend(named_files(named, pattern))
            named = []
            found.extend(_matching(url))
        else:
            named.append(url)
    return found + named_files(named, pattern)


def _matching(url: str) -> list[FileInfo]:
    """A glob's or a folder's tars, in natural order."""
    tars = [file for file in store.list_files(url) if _is_tar(file.url)]
    if tars:
        return sorted(tars, key=lambda file: natural(file.url))
    if "*" in url or "?" in url:
        raise UserError(f"input {store.redact(url)}: no tar matches")
    if store.is_folder(url):
        raise UserError(f"input {store.redact(url)}: no .tar in this folder")
    if store.exists(url):
        raise UserError(f"input {store.redact(url)}: expected a .tar file, a folder or a glob")
    raise UserError(f"input {store.redact(url)}: does not exist")


def named_files(urls: list[str], pattern: str) -> list[FileInfo]:
    """The files of these names, in the order given.

    Raises:
        UserError: one does not exist.
    """
    by_folder: dict[str, list[str]] = {}
    for url in urls:
        by_folder.setdefault(posixpath.dirname(url), []).append(url)
    known: dict[str, FileInfo] = {}
    for folder, members in by_folder.items():
        if len(members) > _FEW_FILES and "?" not in folder:
            listed = {
                posixpath.basename(file.url): file for file in store.list_files(store.join(folder, "*"))
            }
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
        raise UserError(f"input {_some(absent)}: does not exist{of}")
    return [known[url] for url in urls]


def _is_tar(url: str) -> bool:
    return url.lower().endswith(".tar")


def natural(url: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts names with their digits as numbers."""
    parts = re.split(r"([0-9]+)", url)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], url


def _names(urls: list[str]) -> list[str]:
    """Short unique names: the file's without .tar; else with the folders that tell files apart; else that with .tar."""
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


def _some(urls: Sequence[str]) -> str:
    shown = ", ".join(store.redact(url) for url in urls[:_NAMED_IN_ERRORS])
    return shown if len(urls) <= _NAMED_IN_ERRORS else f"{shown} and {len(urls) - _NAMED_IN_ERRORS} more"
