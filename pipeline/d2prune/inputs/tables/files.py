"""Pools of embeddings instead of images: which files belong together, and how they are split into parts.

Four layouts, recognised by the files in the folder:

    DataComp metadata    NAME.parquet + NAME.npz (l14_img, l14_txt, b32_img, b32_txt)
    clip-retrieval       metadata/metadata_I.parquet + img_emb/img_emb_I.npy (+ text_emb/text_emb_I.npy)
    arrays beside tables NAME.parquet + NAME.image_emb.npy (+ NAME.text_emb.npy), or NAME.npy
    tables               NAME.parquet with embeddings in columns of lists

A part is a table file, or a range of its rows where its arrays are large. Parts are in natural order
of the table files. This module works on listings only; `column_names` opens the first file.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.lookup import check_unique, suffix
from d2prune.store import FileInfo, artifacts, patterns

SUPPORTED_INPUTS = (
    "tars; NAME.parquet with NAME.npz beside it (DataComp's metadata); img_emb/, text_emb/ and metadata/ "
    "(clip-retrieval); NAME.parquet with NAME.image_emb.npy or NAME.npy beside it; "
    "parquet with columns of embeddings"
)
IMAGE_ARRAY = "image_emb"
"""Name of the array in a `NAME.npy` file."""

_RETRIEVAL = re.compile(r"^(?P<root>.*/|)metadata/metadata_(?P<number>\d+)\.parquet$")
_ARRAY_FOLDER = re.compile(r"^(?P<root>.*/|)(?P<name>\w+_emb)/(?P=name)_(?P<number>\d+)\.npy$")
_MAX_SUFFIXES = 5


@dataclass(frozen=True)
class TableFile:
    """A table and the arrays stored beside it.

    Attributes:
        table: the parquet file.
        name: unique in the pool; the value of the `shard` column.
        npz: the file with its arrays, if there is one.
        arrays: `.npy` files by the name of their array.
    """

    table: FileInfo
    name: str
    npz: FileInfo | None
    arrays: Mapping[str, FileInfo]

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """The table and its arrays."""
        return (
            self.table,
            *([self.npz] if self.npz else []),
            *(self.arrays[name] for name in sorted(self.arrays)),
        )

    @cached_property
    def is_recordable(self) -> bool:
        """Whether records hold its URLs whole, so that a later command finds the arrays."""
        return all(store.is_recordable(file.url) for file in self.files)


@dataclass(frozen=True)
class TableShard:
    """One part of a table: share `index` of `of` equal shares of its rows; has `TarShard`'s attributes."""

    source: TableFile
    index: int = 0
    of: int = 1

    @property
    def url(self) -> str:
        """URL of the table."""
        return self.source.table.url

    @property
    def name(self) -> str:
        """Name of the table, shared by all its parts."""
        return self.source.name

    @property
    def size(self) -> int:
        """Size of the table's file in bytes."""
        return self.source.table.size

    @property
    def version(self) -> str:
        """Version of the table's file; see `FileInfo.version`."""
        return self.source.table.version

    @property
    def file_versions(self) -> list[tuple[str, int, str]]:
        """Name, size and version (see `FileInfo.version`) of the table and its arrays."""
        return [
            (posixpath.basename(_drop_query(file.url)), file.size, file.version) for file in self.source.files
        ]

    @property
    def identity(self) -> tuple[object, ...]:
        """Values that identify its artifact: names, sizes and versions of its files, and the share.

        Also whether its URLs can be recorded: arrays that later commands cannot find are copied.
        """
        return (self.name, self.file_versions, self.index, self.of, self.source.is_recordable)

    def rows(self, count: int) -> range:
        """Return its rows in a table of `count` rows."""
        return range(count * self.index // self.of, count * (self.index + 1) // self.of)


def pool_identity(shards: Sequence[TableShard]) -> str:
    """Return a fingerprint of the pool, as `shards.pool_identity` does for tars."""
    return artifacts.fingerprint("tables", [shard.identity for shard in shards])


def split_tables(files: Sequence[TableFile], share_bytes: int) -> list[TableShard]:
    """Split tables into parts whose arrays have at most about `share_bytes`."""
    shards: list[TableShard] = []
    for file in files:
        arrays = file.files[1:] or file.files
        of = max(1, -(-sum(array.size for array in arrays) // share_bytes))
        shards.extend(TableShard(file, index, of) for index in range(of))
    return shards


def group_files(tables: Sequence[FileInfo], arrays: Sequence[FileInfo]) -> list[TableFile]:
    """Match tables with their arrays.

    Args:
        tables: parquet files in canonical order.
        arrays: `.npz` and `.npy` files, in any order.

    Raises:
        UserError: a table without its arrays or arrays without their table, two layouts,
            the same table twice.
    """
    check_unique(tables)
    beside: dict[str, dict[str, FileInfo]] = {_drop_query(table.url): {} for table in tables}
    layouts = set()
    for array in arrays:
        layout, url, name = _match_table(array, beside)
        if url not in beside:
            raise UserError(
                f"input: {store.redact(array.url)} has no table beside it; expected {_format_tail(url)}"
            )
        layouts.add(layout)
        beside[url][name] = array
    if len(layouts) > 1:
        raise UserError(f"input: found {' and '.join(sorted(layouts))}; expected one layout per run")
    complete = {name for found in beside.values() for name in found}
    for table in tables:
        url = _drop_query(table.url)
        for name in sorted(complete - beside[url].keys()):
            other = next(found[name] for found in beside.values() if name in found)
            missing = _expected_array(url, _drop_query(other.url), name)
            raise UserError(
                f"input: {store.redact(table.url)} has no {_format_tail(missing)}; "
                f"other tables have one: {_format_tail(other.url)}"
            )
    names = _shorten_names([store.recordable(table.url) for table in tables])
    return [
        TableFile(
            table,
            name,
            next((file for file in found.values() if suffix(file) == ".npz"), None),
            {array: file for array, file in found.items() if suffix(file) == ".npy"},
        )
        for table, found, name in zip(tables, beside.values(), names, strict=True)
    ]


def _drop_query(url: str) -> str:
    return patterns.split_query(url)[0]


def _match_table(array: FileInfo, tables: Mapping[str, object]) -> tuple[str, str, str]:
    """Return the layout of an array, the URL of its table without query, and its name."""
    url = _drop_query(array.url)
    if suffix(array) == ".npz":
        return "DataComp's metadata", f"{url[:-4]}.parquet", "npz"
    found = _ARRAY_FOLDER.match(url)
    if found:
        table = f"{found['root']}metadata/metadata_{found['number']}.parquet"
        return "clip-retrieval's folders", table, found["name"]
    stem, _, name = url[:-4].rpartition(".")
    if stem and "/" not in name and f"{stem}.parquet" in tables:
        return "arrays beside tables", f"{stem}.parquet", name
    return "arrays beside tables", f"{url[:-4]}.parquet", IMAGE_ARRAY


def _expected_array(table: str, other: str, name: str) -> str:
    """Return the URL that array `name` of `table` should have, given that of another table's."""
    retrieval = _RETRIEVAL.match(table)
    if retrieval and _ARRAY_FOLDER.match(other):
        return f"{retrieval['root']}{name}/{name}_{retrieval['number']}.npy"
    endings = (".npz", f".{name}.npy", ".npy")
    return table.removesuffix(".parquet") + next(ending for ending in endings if other.endswith(ending))


def _shorten_names(urls: Sequence[str]) -> list[str]:
    """Return unique names: the file without its suffix, if needed with the folders that tell files apart."""
    bare = [posixpath.basename(url).removesuffix(".parquet") for url in urls]
    if len(set(bare)) == len(bare):
        return bare
    shared = posixpath.commonpath([posixpath.dirname(url) or "." for url in urls])
    return [posixpath.relpath(url, shared).removesuffix(".parquet") for url in urls]


def _format_tail(url: str) -> str:
    """Return the last two components of a URL, for messages that already name the folder."""
    return "/".join(store.redact(url).split("/")[-2:])


def count_by_suffix(files: Sequence[FileInfo]) -> str:
    """Return the most frequent suffixes with their counts, such as `12 .jpg, 3 .json`."""
    count = Counter(suffix(file) or "without a suffix" for file in files)
    return ", ".join(f"{number} {ending}" for ending, number in count.most_common(_MAX_SUFFIXES)) or "nothing"
