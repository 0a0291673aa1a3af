"""Find what `input` of the configuration names: tars, or tables of embeddings. One kind per run."""

import posixpath
from collections.abc import Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.items import Item, parse_items
from d2prune.inputs.lookup import DATA_SUFFIXES, find_named_files, suffix
from d2prune.inputs.overlap import Outside, check_files, check_items
from d2prune.inputs.shards import TarShard, find_tars, natural_key
from d2prune.inputs.tables.files import SUPPORTED_INPUTS, TableFile, TableShard, count_by_suffix, group_files
from d2prune.store import FileInfo, patterns

SourceShard = TarShard | TableShard
"""One part of the input: a tar, or rows of a table."""

# Arrays beside a table that are asked for by name where a folder cannot be listed.
_ARRAYS_BESIDE = (".npz", ".npy", ".image_emb.npy", ".text_emb.npy")


def find_input(
    given: str | Sequence[str], outside: Outside | None = None
) -> list[TarShard] | list[TableFile]:
    """Find the tars, or the tables with their arrays, that a run starts from.

    Args:
        given: a folder (searched recursively), a glob (`*`, `?`), names with braces, or a list of
            these; see `store.patterns`. For tables, names and globs mean the parquet files; their
            arrays are looked up beside them.
        outside: folders that the input must not overlap; see `inputs.overlap`.

    Returns:
        In canonical order: lists and braces as given, folders and globs in natural order.

    Raises:
        UserError: nothing found, no supported file, both kinds, files that do not belong together,
            or one of the folders overlaps.
        InfrastructureError: the storage cannot be reached.
    """
    items = parse_items(given)
    outside = outside or {}
    if all(patterns.split_query(item.text)[0].lower().endswith(".tar") for item in items):
        return find_tars(items, outside)
    check_items(items, outside)
    tables: list[FileInfo] = []
    others: list[FileInfo] = []
    for item in items:
        found = _find_files(item)
        tables.extend(file for file in found if suffix(file) == ".parquet")
        others.extend(file for file in found if suffix(file) != ".parquet")
    arrays = [file for file in others if suffix(file) in (".npz", ".npy")]
    n_tars = sum(suffix(file) == ".tar" for file in others)
    if n_tars and (
        any(map(_is_embedding_array, arrays)) or (tables and any(_names_table(item.text) for item in items))
    ):
        raise UserError(
            f"input {_format_items(items)}: found tars and tables of embeddings "
            f"({count_by_suffix([*tables, *others])}); "
            "expected one kind per run: name the folder of one of them"
        )
    if n_tars or not (tables or others):
        return find_tars(items, outside)
    if not tables:
        raise UserError(
            f"input {_format_items(items)}: found {count_by_suffix(others)}; expected {SUPPORTED_INPUTS}"
        )
    check_files([*tables, *arrays], outside)
    return group_files(tables, arrays)


def _find_files(item: Item) -> list[FileInfo]:
    """Find the files of an item: tables in canonical order, each named table with the arrays beside it."""
    found: list[FileInfo] = []
    named: list[str] = []
    for text in item.names:
        if patterns.has_wildcard(text):
            found.extend(_add_arrays(_list_sorted(text)))
        elif patterns.split_query(text)[0].lower().endswith(DATA_SUFFIXES):
            named.append(patterns.unquote(text))
        else:
            found.extend(_list_sorted(text))
    return found + (_add_arrays(find_named_files(named, item.text)) if named else [])


def _list_sorted(text: str) -> list[FileInfo]:
    return sorted(store.find_files(text, DATA_SUFFIXES), key=lambda file: natural_key(file.url))


def _add_arrays(files: list[FileInfo]) -> list[FileInfo]:
    """Append the arrays that are stored beside the tables among the files."""
    tables = [file.url for file in files if suffix(file) == ".parquet"]
    known = {file.url for file in files}
    if tables and not store.has_listings(tables[0]):
        # The query that signs the URL of a table does not sign those of its arrays; they are named, too.
        stems = {url[: -len(".parquet")] for url in tables if not patterns.split_query(url)[1]}
        names = [stem + ending for stem in sorted(stems) for ending in _ARRAYS_BESIDE]
        return [*files, *store.look_up([name for name in names if name not in known]).values()]
    stems = {url[: -len(".parquet")] for url in tables}
    for folder in sorted({posixpath.dirname(stem) for stem in stems}):
        for file in store.list_files(folder, "*"):
            stem = file.url[:-4]
            beside = suffix(file) in (".npz", ".npy") and (stem in stems or stem.rpartition(".")[0] in stems)
            if beside and file.url not in known:
                files.append(file)
    return files


def _is_embedding_array(file: FileInfo) -> bool:
    """Return whether an array stored beside tars holds embeddings; subset files are .npy files, too."""
    folder = posixpath.basename(posixpath.dirname(file.url))
    return suffix(file) == ".npz" or folder in ("img_emb", "text_emb")


def _names_table(text: str) -> bool:
    return patterns.split_query(text)[0].lower().endswith((".parquet", ".npz", ".npy"))


def _format_items(items: Sequence[Item]) -> str:
    return ", ".join(store.redact(item.text) for item in items)
