"""Write one output tar with its stats and its table, from rows that say where its samples are stored.

Reads byte ranges of input tars; writes `{:08d}.tar`, `{:08d}_stats.json` and `{:08d}.parquet`. The
bytes depend on the rows and the samples alone. A sample's key in the output is `{uid}-{j}`, where j
counts earlier samples of the same uid in this tar, as DataComp's resharder names them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tar.reader import RawMember, parse_sample
from d2prune.output import byte_ranges, layout, receipts
from d2prune.output.byte_ranges import ByteRanges
from d2prune.output.objects import write_object, write_table
from d2prune.output.rename_samples import Strings, rename_in_place
from d2prune.output.tar_stream import Payload, TarStream, encode_members, make_decodable
from d2prune.redaction import encode_json
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord, Receipt


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote.

    Attributes:
        objects: records of the tar, its stats and its table.
        uids: uids of the samples, in tar order.
        repairs: number of members per kind of repair (see `tar_stream.make_decodable`).
    """

    objects: tuple[FileRecord, ...]
    uids: pa.ChunkedArray
    repairs: Mapping[str, int]


def write_shard(
    output: str,
    index: int,
    pieces: Iterable[tuple[str, pa.Table]],
    before_block: Callable[[], None] = lambda: None,
    keep_executable: bool = False,
) -> WrittenShard:
    """Write one output tar, its stats and its table.

    Args:
        output: URL of the output folder.
        index: number of the tar.
        pieces: (URL of an input tar, rows to copy from it). Rows have key, uid, offset and size,
            with ascending offsets; other columns of `schemas.WRITTEN` are optional.
        before_block: called before each block is written; an error it raises stops the writing.
        keep_executable: whether members that a loader would execute keep their names.

    Raises:
        UserError: an input shard no longer exists, or changed.
        InfrastructureError: storage failed.
    """
    wanted: list[_Piece] = []
    repairs: Counter[str] = Counter()
    url = store.join(output, layout.SHARD_FORMAT.format(index))
    with store.writer(url) as sink, TarStream(sink.write) as stream:
        for block in byte_ranges.read_blocks(_list_ranges(pieces, wanted), stream.allocate):
            before_block()
            stream.put(_encode_block(block, wanted[block.source], repairs, keep_executable), block.data)
        stream.close()
    tar = FileRecord(layout.SHARD_FORMAT.format(index), None, stream.size, stream.checksum)
    table = _build_table(wanted)
    stats = encode_json({"successes": table.num_rows})
    objects = (
        tar,
        write_object(output, layout.STATS_FORMAT.format(index), stats),
        write_table(output, layout.TABLE_FORMAT.format(index), table),
    )
    return WrittenShard(objects, table["uid"], dict(repairs))


def commit_shard(work_dir: str, key: str, written: WrittenShard) -> Receipt:
    """Write the receipt of an output tar.

    Args:
        work_dir: the receipt goes to `work_dir/write`.
        key: the unit's key.
        written: the result of `write_shard`.
    """
    counters = {"tars": 1, "written": len(written.uids), **written.repairs}
    return receipts.commit_unit(work_dir, key, written.objects, counters, written.uids)


@dataclass(frozen=True)
class _Piece:
    """Rows to copy from one input tar, with the keys of their samples there and in the output."""

    url: str
    rows: pa.Table
    sizes: NDArray[np.int64]
    new_keys: pa.Array
    key_strings: Strings
    new_key_strings: Strings


def _list_ranges(pieces: Iterable[tuple[str, pa.Table]], wanted: list[_Piece]) -> Iterator[ByteRanges]:
    """Yield what to read, piece by piece, and append each piece to `wanted`."""
    seen: Counter[str] = Counter()
    for url, rows in pieces:
        keys = []
        for uid in rows["uid"].to_pylist():
            keys.append(f"{uid}-{seen[uid]}")
            seen[uid] += 1
        new_keys = pa.array(keys, pa.string())
        sizes = rows["size"].to_numpy()
        wanted.append(
            _Piece(
                url,
                rows,
                sizes,
                new_keys,
                Strings.from_column(rows["key"]),
                Strings.from_column(new_keys),
            )
        )
        yield ByteRanges(url, rows["offset"].to_pylist(), sizes.tolist())


def _encode_block(
    block: byte_ranges.Block, piece: _Piece, repairs: Counter[str], keep_executable: bool
) -> list[Payload]:
    """Encode a block for the output tar: in place where new headers suffice, else member by member."""
    first, last = block.first, block.last
    sizes = piece.sizes[first:last]
    unchanged = rename_in_place(
        block.data,
        sizes,
        piece.key_strings.slice(first, last),
        piece.new_key_strings.slice(first, last),
        keep_executable,
    )
    if not unchanged:
        return [block.data]
    bounds = [0, *np.cumsum(sizes).tolist()]
    parts: list[Payload] = []
    done = 0
    for i in unchanged:
        parts.append(block.data[done : bounds[i]])
        done = bounds[i + 1]
        key, offset = piece.rows["key"][first + i].as_py(), piece.rows["offset"][first + i].as_py()
        raw = _parse_members(block.data[bounds[i] : done], piece.url, key, offset)
        members, repaired = make_decodable(raw, keep_executable)
        repairs.update(repaired)
        parts += encode_members(piece.new_keys[first + i].as_py(), members)
    parts.append(block.data[done:])
    return parts


def _parse_members(data: memoryview, url: str, key: str, offset: int) -> list[RawMember]:
    try:
        members = parse_sample(data)
    except ValueError as error:
        raise UserError(_describe_changed_tar(url, key, offset, str(error))) from error
    if not members or not members[0].name.startswith(f"{key}."):
        found = members[0].name if members else "nothing"
        raise UserError(_describe_changed_tar(url, key, offset, f"found {found}"))
    return members


def _describe_changed_tar(url: str, key: str, offset: int, detail: str) -> str:
    return (
        f"{store.redact(url)}: sample {key} is no longer at byte {offset} ({detail}); "
        "the tar changed during the run; run again to embed its new content"
    )


def _build_table(wanted: Sequence[_Piece]) -> pa.Table:
    """Build the tar's table, with the columns of `schemas.WRITTEN`; columns the rows lack are null."""
    schema = schemas.WRITTEN
    if not wanted:
        return schema.empty_table()
    rows = pa.concat_tables([piece.rows for piece in wanted])
    columns = []
    for field in schema:
        source = "key" if field.name == "source_key" else field.name
        if field.name == "key":
            columns.append(pa.chunked_array([piece.new_keys for piece in wanted]))
        elif source in rows.column_names:
            columns.append(rows[source].cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
    return pa.Table.from_arrays(columns, schema=schema).combine_chunks()
