"""One output tar with its stats and its table: rows that say where samples lie -> objects under their final names.

Reads byte ranges of input tars, writes `{:08d}.tar`, `{:08d}_stats.json` and `{:08d}.parquet`. The
bytes depend on the rows and the samples alone. A sample's key in the tar is `{uid}-{j}`, j counting
the same uid in this tar, as DataComp's resharder names them.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tar.reader import parse_sample
from d2prune.output import fetch, layout, relabel, subset
from d2prune.output.tar_stream import Payload, TarStream, encode_members, trainable
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import FileRecord, Receipt

UIDS = "uids.npy"
"""A unit's file: the rows of a subset file, without its header."""


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote: records of the output's objects, and the uids as bytes of a subset file's rows."""

    rows: int
    files: tuple[FileRecord, ...]
    uids: bytes
    repairs: Mapping[str, int]


def write_shard(
    output: str,
    index: int,
    pieces: Iterable[tuple[str, pa.Table]],
    go_on: Callable[[], None] = lambda: None,
) -> WrittenShard:
    """Write one output tar, its stats and its table.

    Args:
        output: URL of the output folder.
        index: number of the tar.
        pieces: (URL of an input tar, rows to copy from it). Rows have key, uid, offset, size,
            offsets ascending, and whatever else of `schemas.WRITTEN` is known.
        go_on: called before each block; what it raises ends the writing.

    Raises:
        UserError: an input shard is gone or changed.
        InfrastructureError: storage failed.
    """
    wanted: list[_Wanted] = []
    repairs: Counter[str] = Counter()
    url = store.join(output, layout.SHARD_FORMAT.format(index))
    with store.writer(url) as sink, TarStream(sink.write) as stream:
        for block in fetch.read_blocks(_sources(pieces, wanted), stream.room):
            go_on()
            stream.put(_parts(block, wanted[block.source], repairs), block.data)
        stream.close()
    tar = FileRecord(layout.SHARD_FORMAT.format(index), None, stream.size, stream.checksum)
    table = _written_table(wanted)
    stats = json.dumps({"successes": table.num_rows}).encode()
    files = (
        tar,
        put_bytes(output, layout.STATS_FORMAT.format(index), stats),
        put_table(output, layout.TABLE_FORMAT.format(index), table),
    )
    uids = subset.encode(table["uid"].to_pylist()).tobytes()
    return WrittenShard(table.num_rows, files, uids, dict(repairs))


@dataclass(frozen=True)
class _Wanted:
    """Rows to copy from one input tar, with their keys there and here."""

    url: str
    rows: pa.Table
    sizes: NDArray[np.int64]
    keys: relabel.Texts
    names: pa.Array
    new_keys: relabel.Texts


def _sources(pieces: Iterable[tuple[str, pa.Table]], wanted: list[_Wanted]) -> Iterator[fetch.Source]:
    """What to read, piece by piece; `wanted` gets what is known of each."""
    seen: Counter[str] = Counter()
    for url, rows in pieces:
        names = []
        for uid in rows["uid"].to_pylist():
            names.append(f"{uid}-{seen[uid]}")
            seen[uid] += 1
        new = pa.array(names, pa.string())
        sizes = rows["size"].to_numpy()
        wanted.append(_Wanted(url, rows, sizes, relabel.Texts.of(rows["key"]), new, relabel.Texts.of(new)))
        yield fetch.Source(url, rows["offset"].to_pylist(), sizes.tolist())


def _parts(block: fetch.Block, wanted: _Wanted, repairs: Counter[str]) -> list[Payload]:
    """A block as it is written: samples with new headers where they lie, and what takes more member by member."""
    first, last = block.first, block.last
    sizes = wanted.sizes[first:last]
    others = relabel.relabel(
        block.data, sizes, wanted.keys.slice(first, last), wanted.new_keys.slice(first, last)
    )
    if not others:
        return [block.data]
    bounds = [0, *np.cumsum(sizes).tolist()]
    parts: list[Payload] = []
    done = 0
    for i in others:
        parts.append(block.data[done : bounds[i]])
        done = bounds[i + 1]
        key, offset = wanted.rows["key"][first + i].as_py(), wanted.rows["offset"][first + i].as_py()
        members, fixed = _members(block.data[bounds[i] : done], wanted.url, key, offset)
        repairs.update(fixed)
        parts += encode_members(wanted.names[first + i].as_py(), members)
    parts.append(block.data[done:])
    return parts


def _members(
    data: memoryview, url: str, key: str, offset: int
) -> tuple[list[tuple[str, Payload]], tuple[str, ...]]:
    try:
        members = parse_sample(data)
    except ValueError as error:
        raise UserError(_changed(url, key, offset, str(error))) from error
    if not members or not members[0].name.startswith(f"{key}."):
        found = members[0].name if members else "nothing"
        raise UserError(_changed(url, key, offset, f"found {found}"))
    return trainable(members)


def _changed(url: str, key: str, offset: int, detail: str) -> str:
    return (
        f"{store.redact(url)}: sample {key} is no longer at byte {offset} ({detail}); "
        "the tar changed while the run was under way; run again to embed what is there now"
    )


def _written_table(wanted: Sequence[_Wanted]) -> pa.Table:
    """The rows with their new keys, in the columns of `schemas.WRITTEN`; columns nobody knows are null."""
    schema = schemas.WRITTEN
    if not wanted:
        return schema.empty_table()
    rows = pa.concat_tables([piece.rows for piece in wanted])
    columns = []
    for field in schema:
        source = "key" if field.name == "source_key" else field.name
        if field.name == "key":
            columns.append(pa.chunked_array([piece.names for piece in wanted]))
        elif source in rows.column_names:
            columns.append(rows[source].cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
    return pa.Table.from_arrays(columns, schema=schema).combine_chunks()


def put_bytes(output: str, name: str, data: bytes, rows: int | None = None) -> FileRecord:
    """Write one small object of the output and tell its size and checksum."""
    store.write_bytes(store.join(output, name), data)
    return FileRecord(name, rows, len(data), store.checksum(data))


def put_table(output: str, name: str, table: pa.Table) -> FileRecord:
    """Write one table of the output."""
    return put_bytes(output, name, artifacts.table_bytes(table.combine_chunks()), table.num_rows)


def commit_shard(folder: str, key: str, written: WrittenShard) -> Receipt:
    """The receipt of a tar that was written, with its uids for the subset file.

    Args:
        folder: where receipts go, `work_dir/write`.
        key: the unit's.
        written: what `write_shard` gave.
    """
    counters = {"tars": 1, "written": written.rows, **written.repairs}
    return artifacts.commit_unit(
        folder, key, {UIDS: written.uids}, counters, {"output": output_facts(written.files)}
    )


def output_facts(files: Iterable[FileRecord]) -> list[dict[str, object]]:
    """File records of the output as JSON values, for a receipt's facts."""
    return [dataclasses.asdict(file) for file in files]


def output_files(receipt: Receipt) -> list[FileRecord]:
    """The objects of the output folder that a unit wrote."""
    return [FileRecord(**record) for record in receipt.facts["output"]]
