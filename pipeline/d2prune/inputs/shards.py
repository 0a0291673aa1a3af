"""Find the tars that `input` of the configuration names, as an ordered list.

The order is canonical: it decides every tie downstream. Folders and globs are in natural order
(digits compare as numbers), braces and lists in the given order. No tar is opened here.
"""

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.items import Item, parse_items
from d2prune.inputs.lookup import DATA_SUFFIXES, check_unique, find_named_files, suffix
from d2prune.inputs.overlap import Outside, check_files, check_items
from d2prune.store import FileInfo, artifacts, patterns


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


def expand_input(given: str | Sequence[str], outside: Outside | None = None) -> list[TarShard]:
    """Find the tars that `input` of the configuration names.

    Args:
        given: a folder (searched recursively), a glob (`*`, `?`), names with braces, or a list of
            these; see `store.patterns`.
        outside: folders that the input must not overlap; see `inputs.overlap`.

    Returns:
        The shards in canonical order.

    Raises:
        UserError: nothing given, a name that does not exist or is not a tar, no tar matched, the
            same tar twice, or one of the folders overlaps.
        InfrastructureError: the storage cannot be reached.
    """
    return find_tars(parse_items(given), outside or {})


def find_tars(items: Sequence[Item], outside: Outside) -> list[TarShard]:
    """Find the tars of parsed items; see `expand_input`."""
    check_items(items, outside)
    files: list[FileInfo] = []
    for item in items:
        files.extend(_find_item(item))
    check_unique(files)
    check_files(files, outside)
    names = _shorten_names([store.recordable(file.url) for file in files])
    return [
        TarShard(url=file.url, name=name, size=file.size, version=file.version)
        for file, name in zip(files, names, strict=True)
    ]


def pool_identity(shards: Sequence[TarShard]) -> str:
    """Return a fingerprint of the pool: names, sizes, versions and order. No URLs, since a pool may move."""
    return artifacts.fingerprint([(shard.name, shard.size, shard.version) for shard in shards])


def _find_item(item: Item) -> list[FileInfo]:
    found: list[FileInfo] = []
    named: list[str] = []
    for text in item.names:
        if patterns.has_wildcard(text) or not _is_tar(text):
            found.extend(find_named_files(named, item.text))
            named = []
            found.extend(_list_tars(text))
        else:
            named.append(patterns.unquote(text))
    return found + find_named_files(named, item.text)


def _list_tars(text: str) -> list[FileInfo]:
    """List the tars of a glob or a folder, in natural order."""
    tars = [file for file in store.find_files(text, DATA_SUFFIXES) if suffix(file) == ".tar"]
    if tars:
        return sorted(tars, key=lambda file: natural_key(file.url))
    shown = store.redact(text)
    if patterns.has_wildcard(text):
        hint = "; in input, [ and ] are ordinary characters, and braces give ranges: {0..9}"
        raise UserError(f"input {shown}: no tar matches{hint if '[' in text else ''}")
    url = patterns.unquote(text)
    if not store.has_listings(url):
        raise UserError(
            f"input {shown}: this web server lists no .tar there; name the files, "
            "as in https://host/{00000..00012}.tar"
        )
    found = store.describe(url)
    if found == store.FOLDER:
        raise UserError(f"input {shown}: no .tar in this folder")
    if found is not None:
        raise UserError(f"input {shown}: found {found}; expected a .tar file, a folder or a glob")
    raise UserError(f"input {shown}: does not exist")


def _is_tar(text: str) -> bool:
    return patterns.split_query(text)[0].lower().endswith(".tar")


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
