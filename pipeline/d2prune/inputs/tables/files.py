"""Pools that hold embeddings instead of pictures: which files belong together, and how they are cut into parts.

Four layouts, told apart by what lies in the folder:

    DataComp metadata    NAME.parquet + NAME.npz (l14_img, l14_txt, b32_img, b32_txt)
    clip-retrieval       metadata/metadata_I.parquet + img_emb/img_emb_I.npy (+ text_emb/text_emb_I.npy)
    arrays beside tables NAME.parquet + NAME.image_emb.npy (+ NAME.text_emb.npy), or NAME.npy
    tables               NAME.parquet with embeddings in columns of lists

A part is a table file, or a run of its rows where its arrays are large. Parts come in natural order
of the table files. Nothing here reads more than a listing; `columns` looks into the first file.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError
from d2prune.store import FileInfo, artifacts

UNDERSTOOD = (
    "tars; NAME.parquet with NAME.npz beside it (DataComp's metadata); img_emb/, text_emb/ and metadata/ "
    "(clip-retrieval); NAME.parquet with NAME.image_emb.npy or NAME.npy beside it; parquet with columns of embeddings"
)
IMAGE_ARRAY = "image_emb"
"""What the array of a lone `NAME.npy` is called."""

_RETRIEVAL = re.compile(r"^(?P<root>.*/|)metadata/metadata_(?P<number>\d+)\.parquet$")
_ARRAY_FOLDER = re.compile(r"^(?P<root>.*/|)(?P<name>\w+_emb)/(?P=name)_(?P<number>\d+)\.npy$")
_SHOWN = 5


@dataclass(frozen=True)
class TableFile:
    """A table and what lies beside it.

    Attributes:
        table: the parquet file.
        name: unique in the pool; goes into the `shard` column.
        npz: the file with its arrays, if there is one.
        arrays: `.npy` files by the name of their array.
    """

    table: FileInfo
    name: str
    npz: FileInfo | None
    arrays: Mapping[str, FileInfo]

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """All of them."""
        return (
            self.table,
            *([self.npz] if self.npz else []),
            *(self.arrays[name] for name in sorted(self.arrays)),
        )


@dataclass(frozen=True)
class TableShard:
    """One part: share `index` of `of` equal shares of the rows of a table. It has what `pool.Shard` has, and more."""

    source: TableFile
    index: int = 0
    of: int = 1

    @property
    def url(self) -> str:
        """Of the table."""
        return self.source.table.url

    @property
    def name(self) -> str:
        """Of the table; parts of one table share it."""
        return self.source.name

    @property
    def size(self) -> int:
        """Of the table's file."""
        return self.source.table.size

    @property
    def version(self) -> str:
        """Of the table's file."""
        return self.source.table.version

    @property
    def identity(self) -> tuple[object, ...]:
        """What decides its content: names, sizes and versions of its files, and the share."""
        files = [(posixpath.basename(file.url), file.size, file.version) for file in self.source.files]
        return (self.name, files, self.index, self.of)

    def rows(self, count: int) -> range:
        """Its rows of a table of `count`."""
        return range(count * self.index // self.of, count * (self.index + 1) // self.of)


def pool_identity(shards: Sequence[TableShard]) -> str:
    """A fingerprint of the whole pool, as `pool.pool_identity`."""
    return artifacts.fingerprint("tables", [shard.identity for shard in shards])


def cut(files: Sequence[TableFile], share_bytes: int) -> list[TableShard]:
    """Parts of at most about `share_bytes` of a table's files."""
    shards: list[TableShard] = []
    for file in files:
        arrays = file.files[1:] or file.files
        of = max(1, -(-sum(array.size for array in arrays) // share_bytes))
        shards.extend(TableShard(file, index, of) for index in range(of))
    return shards


def group(tables: Sequence[FileInfo], arrays: Sequence[FileInfo]) -> list[TableFile]:
    """Puts tables and arrays together.

    Args:
        tables: parquet files in canonical order.
        arrays: `.npz` and `.npy` files, in any order.

    Raises:
        UserError: a table without its arrays or arrays without their table, two layouts at once,
            the same table twice.
    """
    twice = [url for url, count in Counter(table.url for table in tables).items() if count > 1]
    if twice:
        raise UserError(f"input: {store.redact(twice[0])} would be read twice")
    beside: dict[str, dict[str, FileInfo]] = {table.url: {} for table in tables}
    layouts = set()
    for array in arrays:
        layout, url, name = _place(array, beside)
        if url not in beside:
            raise UserError(
                f"input: {store.redact(array.url)} has no table beside it; expected {_shown(url)}"
            )
        layouts.add(layout)
        beside[url][name] = array
    if len(layouts) > 1:
        raise UserError(f"input: holds {' and '.join(sorted(layouts))}; expected one kind per run")
    complete = {name for found in beside.values() for name in found}
    for table in tables:
        for name in sorted(complete - beside[table.url].keys()):
            other = next(found[name] for found in beside.values() if name in found)
            missing = _partner(table.url, other.url, name)
            raise UserError(
                f"input: {store.redact(table.url)} has no {_shown(missing)}, which others have: {_shown(other.url)}"
            )
    names = _names([store.redact(table.url) for table in tables])
    return [
        TableFile(
            table,
            name,
            next((file for file in beside[table.url].values() if suffix(file) == ".npz"), None),
            {name_of: file for name_of, file in beside[table.url].items() if suffix(file) == ".npy"},
        )
        for table, name in zip(tables, names, strict=True)
    ]


def _place(array: FileInfo, tables: Mapping[str, object]) -> tuple[str, str, str]:
    """Where an array belongs: layout, URL of its table, name of the array."""
    url = array.url
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


def _partner(table: str, other: str, name: str) -> str:
    """The file that `table` should have for array `name`, as `other` is to its own table."""
    retrieval = _RETRIEVAL.match(table)
    if retrieval and _ARRAY_FOLDER.match(other):
        return f"{retrieval['root']}{name}/{name}_{retrieval['number']}.npy"
    endings = (".npz", f".{name}.npy", ".npy")
    return table.removesuffix(".parquet") + next(ending for ending in endings if other.endswith(ending))


def _names(urls: Sequence[str]) -> list[str]:
    """Short unique names: the file's without its ending, else with the folders that tell files apart."""
    bare = [posixpath.basename(url).removesuffix(".parquet") for url in urls]
    if len(set(bare)) == len(bare):
        return bare
    shared = posixpath.commonpath([posixpath.dirname(url) or "." for url in urls])
    return [posixpath.relpath(url, shared).removesuffix(".parquet") for url in urls]


def _shown(url: str) -> str:
    """The end of a URL, for messages that name the folder already."""
    return "/".join(store.redact(url).split("/")[-2:])


def suffix(file: FileInfo) -> str:
    """The ending of a file's name, in lower case."""
    return posixpath.splitext(file.url)[1].lower()


def count_by_suffix(files: Sequence[FileInfo]) -> str:
    """What lies there in a few words: `12 .jpg, 3 .json`."""
    count = Counter(suffix(file) or "without an ending" for file in files)
    return ", ".join(f"{number} {ending}" for ending, number in count.most_common(_SHOWN)) or "nothing"
