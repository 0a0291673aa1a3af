"""Find what `input` of the configuration names: tars, or tables of embeddings. One kind per run."""

import posixpath
from collections.abc import Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.braces import expand_braces
from d2prune.inputs.shards import (
    TarShard,
    expand_input,
    find_named_files,
    is_pattern,
    list_input,
    natural_key,
)
from d2prune.inputs.tables.files import (
    SUPPORTED_INPUTS,
    TableFile,
    TableShard,
    count_by_suffix,
    group_files,
    suffix,
)
from d2prune.store import FileInfo

SourceShard = TarShard | TableShard
"""One part of the input: a tar, or rows of a table."""

_FILE_SUFFIXES = (".parquet", ".npz", ".npy", ".tar")


def find_input(given: str | Sequence[str]) -> list[TarShard] | list[TableFile]:
    """Find the tars, or the tables with their arrays, that a run starts from.

    Args:
        given: a folder (searched recursively), a glob (`*`, `?`), names with braces, or a list of
            these. For tables, names and globs mean the parquet files; their arrays are looked up
            beside them.

    Returns:
        In canonical order: lists and braces as given, folders and globs in natural order.

    Raises:
        UserError: nothing found, no supported file, both kinds, or files that do not belong
            together.
        InfrastructureError: the storage cannot be reached.
    """
    patterns = [given] if isinstance(given, str) else list(given)
    if not patterns or not all(patterns) or all(pattern.lower().endswith(".tar") for pattern in patterns):
        return expand_input(given)
    tables: list[FileInfo] = []
    others: list[FileInfo] = []
    for pattern in patterns:
        found = _find_files(pattern)
        tables.extend(file for file in found if suffix(file) == ".parquet")
        others.extend(file for file in found if suffix(file) != ".parquet")
    arrays = [file for file in others if suffix(file) in (".npz", ".npy")]
    n_tars = sum(suffix(file) == ".tar" for file in others)
    if n_tars and (
        any(map(_is_embedding_array, arrays))
        or (tables and any(_names_table(pattern) for pattern in patterns))
    ):
        raise UserError(
            f"input {_format_input(given)}: found tars and tables of embeddings "
            f"({count_by_suffix([*tables, *others])}); "
            "expected one kind per run: name the folder of one of them"
        )
    if n_tars or not (tables or others):
        return expand_input(given)
    if not tables:
        raise UserError(
            f"input {_format_input(given)}: found {count_by_suffix(others)}; expected {SUPPORTED_INPUTS}"
        )
    return group_files(tables, arrays)


def _find_files(pattern: str) -> list[FileInfo]:
    """Find the files of a pattern: tables in canonical order, each named table with the arrays beside it."""
    found: list[FileInfo] = []
    named: list[str] = []
    for url in expand_braces(pattern):
        if is_pattern(url):
            found.extend(_add_arrays(_list_sorted(url)))
        elif url.lower().endswith(_FILE_SUFFIXES):
            named.append(url)
        else:
            found.extend(_list_sorted(url))
    return found + (_add_arrays(find_named_files(named, pattern)) if named else [])


def _list_sorted(url: str) -> list[FileInfo]:
    return sorted(list_input(url), key=lambda file: natural_key(file.url))


def _add_arrays(files: list[FileInfo]) -> list[FileInfo]:
    """Append the arrays that are stored beside the tables among the files."""
    stems = {file.url[: -len(".parquet")] for file in files if suffix(file) == ".parquet"}
    known = {file.url for file in files}
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


def _names_table(pattern: str) -> bool:
    return pattern.lower().endswith((".parquet", ".npz", ".npy"))


def _format_input(given: str | Sequence[str]) -> str:
    return ", ".join(store.redact(pattern) for pattern in ([given] if isinstance(given, str) else given))
