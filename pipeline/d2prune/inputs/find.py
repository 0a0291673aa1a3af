"""What `input` of the configuration means: tars, or tables of embeddings. One kind per run."""

import posixpath
from collections.abc import Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.braces import expand_braces
from d2prune.inputs.shards import Shard, expand_input, named_files, natural
from d2prune.inputs.tables.files import UNDERSTOOD, TableFile, TableShard, count_by_suffix, group, suffix
from d2prune.store import FileInfo

SourceShard = Shard | TableShard
"""One part of the input: a tar, or rows of a table."""

_KNOWN = (".parquet", ".npz", ".npy", ".tar")


def find_input(given: str | Sequence[str]) -> list[Shard] | list[TableFile]:
    """Finds the tars, or the tables with their arrays, that a run starts from.

    Args:
        given: a folder (searched with all below it), a glob (`*`, `?`), names with braces, or a
            list of such. Of tables, names and globs mean the parquet files; their arrays are looked
            for beside them.

    Returns:
        In canonical order: lists and braces as given, folders and globs in natural order.

    Raises:
        UserError: nothing there, nothing that is understood, two kinds at once, or files that do
            not belong together.
        InfrastructureError: the storage cannot be reached.
    """
    patterns = [given] if isinstance(given, str) else list(given)
    if not patterns or not all(patterns) or all(pattern.lower().endswith(".tar") for pattern in patterns):
        return expand_input(given)
    tables: list[FileInfo] = []
    others: list[FileInfo] = []
    for pattern in patterns:
        found = _find(pattern)
        tables.extend(file for file in found if suffix(file) == ".parquet")
        others.extend(file for file in found if suffix(file) != ".parquet")
    arrays = [file for file in others if suffix(file) in (".npz", ".npy")]
    n_tars = sum(suffix(file) == ".tar" for file in others)
    if n_tars and (
        any(map(_is_pool_array, arrays)) or (tables and any(_names_table(pattern) for pattern in patterns))
    ):
        raise UserError(
            f"input {_shown(given)}: holds tars and tables of embeddings ({count_by_suffix([*tables, *others])}); "
            "expected one kind per run: name the folder of one of them"
        )
    if n_tars or not (tables or others):
        return expand_input(given)
    if not tables:
        raise UserError(f"input {_shown(given)}: found {count_by_suffix(others)}; expected {UNDERSTOOD}")
    return group(tables, arrays)


def _find(pattern: str) -> list[FileInfo]:
    """The files of a pattern, tables in canonical order, each named table with the arrays beside it."""
    found: list[FileInfo] = []
    named: list[str] = []
    for url in expand_braces(pattern):
        if "*" in url or "?" in url:
            found.extend(_with_arrays(sorted(store.list_files(url), key=lambda file: natural(file.url))))
        elif url.lower().endswith(_KNOWN):
            named.append(url)
        else:
            found.extend(sorted(store.list_files(url), key=lambda file: natural(file.url)))
    return found + (_with_arrays(named_files(named, pattern)) if named else [])


def _with_arrays(files: list[FileInfo]) -> list[FileInfo]:
    """The files and, of the tables among them, the arrays beside them."""
    stems = {file.url[: -len(".parquet")] for file in files if suffix(file) == ".parquet"}
    known = {file.url for file in files}
    for folder in sorted({posixpath.dirname(stem) for stem in stems}):
        for file in store.list_files(store.join(folder, "*")):
            stem = file.url[:-4]
            beside = suffix(file) in (".npz", ".npy") and (stem in stems or stem.rpartition(".")[0] in stems)
            if beside and file.url not in known:
                files.append(file)
    return files


def _is_pool_array(file: FileInfo) -> bool:
    """Whether a file beside tars can only be a pool's: subset files lie there too."""
    return suffix(file) == ".npz" or posixpath.basename(posixpath.dirname(file.url)) in (
        "img_emb",
        "text_emb",
    )


def _names_table(pattern: str) -> bool:
    return pattern.lower().endswith((".parquet", ".npz", ".npy"))


def _shown(given: str | Sequence[str]) -> str:
    return ", ".join(store.redact(pattern) for pattern in ([given] if isinstance(given, str) else given))
