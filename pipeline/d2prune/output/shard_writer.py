"""Write one output tar with its stats and its table, from rows that say where its samples are stored.

Reads byte ranges of input tars; writes `{:08d}.tar`, `{:08d}_stats.json` and `{:08d}.parquet`, or a
tar that outputs share and its table (`layout.ShardFiles`). The
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
from d2prune.inputs.tar.checksum import hash_samples
from d2prune.inputs.tar.reader import RawMember, parse_sample
from d2prune.output import byte_ranges, layout, receipts
from d2prune.output.byte_ranges import ByteRanges
from d2prune.output.objects import write_object, write_table
from d2prune.output.rename_samples import Strings, rename_in_place
from d2prune.output.tar_stream import Payload, TarStream, encode_members, make_decodable
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord, Receipt


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote.

    Attributes:
        objects: records of the tar, its stats and its table.
        uids: uids of the samples, in tar order.
        repairs: number of members per kind of repair (see `tar_stream.make_decodable`).
        checksums: of the samples, of a tar that outputs share.
    """

    objects: tuple[FileRecord, ...]
    uids: pa.ChunkedArray
    repairs: Mapping[str, int]
    checksums: pa.ChunkedArray | None = None


def write_shard(
    output: str,
    names: layout.ShardFiles,
    pieces: Iterable[tuple[str, pa.Table]],
    before_block: Callable[[], None] = lambda: None,
    keep_executable: bool = False,
    versions: Mapping[str, str] | None = None,
) -> WrittenShard:
    """Write one output tar, its stats and its table.

    Args:
        output: URL of the output folder.
        names: of its files.
        pieces: (URL of an input tar, rows to copy from it). Rows have key, uid, offset and size,
            with ascending offsets; other columns of `schemas.WRITTEN` are optional. Samples are
            compared with the column `checksum`, if there is one.
        before_block: called before each block is written; an error it raises stops the writing.
        keep_executable: whether members that a loader would execute keep their names.
        versions: URL of an input tar -> its version (`FileInfo.version`) when it was listed, for the
            error message about a sample that has changed.

    Raises:
        UserError: an input shard no longer exists, or changed.
        InfrastructureError: storage failed.
    """
    versions = versions or {}
    wanted: list[_Piece] = []
    repairs: Counter[str] = Counter()
    url = layout.locate(output, names.tar)
    with store.writer(url, store.Sync.LATER) as sink, TarStream(sink.write) as stream:
        for block in byte_ranges.read_blocks(_list_ranges(pieces, wanted, versions), stream.allocate):
            before_block()
            stream.put(_encode_block(block, wanted[block.source], repairs, keep_executable), block.data)
        stream.close()
    table = _build_table(wanted)
    objects = [FileRecord(names.tar, None, stream.size, stream.checksum)]
    if names.stats is None:
        # Other runs list the same files, so these hold nothing that depends on the run.
        objects.append(write_table(output, names.table, table.select(schemas.SHARED.names)))
        return WrittenShard(tuple(objects), table["uid"], dict(repairs), table["checksum"])
    objects.append(write_object(output, names.stats, store.encode_record({"successes": table.num_rows})))
    objects.append(write_table(output, names.table, table))
    return WrittenShard(tuple(objects), table["uid"], dict(repairs))


def commit_shard(work_dir: str, key: str, written: WrittenShard) -> Receipt:
    """Write the receipt of an output tar.

    Args:
        work_dir: the receipt goes to `work_dir/write`.
        key: the unit's key.
        written: the result of `write_shard`.
    """
    counters = {"tars": 1, "written": len(written.uids), **written.repairs}
    return receipts.commit_unit(work_dir, key, written.objects, counters, written.uids, written.checksums)


@dataclass(frozen=True)
class _Piece:
    """Rows to copy from one input tar, with the keys of their samples there and in the output.

    `version` is None, and `checksums` is empty, where nothing was embedded.
    """

    url: str
    version: str | None
    rows: pa.Table
    sizes: NDArray[np.int64]
    checksums: Sequence[bytes]
    new_keys: pa.Array
    key_strings: Strings
    new_key_strings: Strings


def _list_ranges(
    pieces: Iterable[tuple[str, pa.Table]], wanted: list[_Piece], versions: Mapping[str, str]
) -> Iterator[ByteRanges]:
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
                versions.get(url),
                rows,
                sizes,
                rows["checksum"].to_pylist() if "checksum" in rows.column_names else (),
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
    if piece.checksums:
        _compare_checksums(block, piece)
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
        raw = _parse_members(block.data[bounds[i] : done], piece, first + i)
        members, repaired = make_decodable(raw, keep_executable)
        repairs.update(repaired)
        parts += encode_members(piece.new_keys[first + i].as_py(), members)
    parts.append(block.data[done:])
    return parts


def _compare_checksums(block: byte_ranges.Block, piece: _Piece) -> None:
    """Compare the samples of a block with those that were embedded.

    Raises:
        UserError: one differs.
    """
    found = hash_samples(block.data, piece.sizes[block.first : block.last])
    expected = piece.checksums[block.first : block.last]
    if found == expected:
        return
    i = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    this = found[i]
    text = f"checksum {this.hex()}" if this is not None else "bytes that are not a sample"
    raise _make_changed_error(piece, block.first + i, f"found {text}; expected checksum {expected[i].hex()}")


def _parse_members(data: memoryview, piece: _Piece, row: int) -> list[RawMember]:
    try:
        members = parse_sample(data)
    except ValueError as error:
        raise _make_changed_error(piece, row, str(error)) from error
    if not members or not members[0].name.startswith(f"{piece.rows['key'][row].as_py()}."):
        raise _make_changed_error(piece, row, f"found {members[0].name if members else 'nothing'}")
    return members


def _make_changed_error(piece: _Piece, row: int, detail: str) -> UserError:
    """Make the error about a sample that is not what was embedded or indexed."""
    try:
        is_same_file = piece.version is not None and store.info(piece.url).version == piece.version
    except FileNotFoundError:
        is_same_file = False
    # The new content is another run's, so it does not go to the folder that this run has claimed.
    advice = "the tar changed during the run; empty the output folder and run again to read its new content"
    if is_same_file:
        advice = (
            "the tar is damaged, or was replaced under its old size and time (or ETag); "
            "restore it and run again"
        )
    key, offset = piece.rows["key"][row].as_py(), piece.rows["offset"][row].as_py()
    return UserError(
        f"{store.redact(piece.url)}: sample {key} is no longer at byte {offset} ({detail}); {advice}"
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
