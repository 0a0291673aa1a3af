"""The write stage: kept samples -> numbered output tars, each with its stats and table; and the pool's decisions.

Reads the embed artifact (byte ranges), the select artifact (decisions) and the input tars. Writes, per output tar i of
at most `samples_per_shard` samples: `{i:08d}.tar`, `{i:08d}_stats.json`, `{i:08d}.parquet`; per input shard p:
`decisions-{p:08d}.parquet`. The invariant: kept samples in canonical order fill the tars densely, so who writes which
tar, and in which order, shows nowhere in the bytes. A unit's receipt is written after its objects.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import artifacts, schemas, storage
from pipeline.artifacts import FileRecord, Manifest, Receipt
from pipeline.errors import BooksError, InfrastructureError, UserError
from pipeline.inputs.pool import Shard
from pipeline.inputs.tar import parse_sample
from pipeline.output import fetch, layout, subset
from pipeline.output.tar_stream import TarStream, trainable

SAMPLES = "samples.parquet"
DECISIONS = "decisions.parquet"
UIDS = "uids.npy"

_SAMPLE_COLUMNS = ("shard", "key", "uid", "offset", "size", "caption", "width", "height", "clip_score")
_DECISION_COLUMNS = ("uid", "difficulty", "forward_score", "selection_score", "kept", "suppressed_by")


@dataclass(frozen=True)
class WriteParams:
    """What decides the output beyond the selection.

    Attributes:
        samples_per_shard: samples in each output tar but the last.
    """

    samples_per_shard: int = 10_000


@dataclass(frozen=True)
class Part:
    """One input shard with its rows in the embed and select artifacts (receipts without counters and facts)."""

    index: int
    shard: Shard
    samples: Receipt
    decisions: Receipt


@dataclass(frozen=True)
class Slice:
    """Kept rows [start, stop) of a part, counted among its kept rows."""

    part: Part
    start: int
    stop: int


@dataclass(frozen=True)
class TarUnit:
    """One output tar."""

    key: str
    index: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class DecisionsUnit:
    """The decisions of one input shard, for the output."""

    key: str
    part: Part


Unit = TarUnit | DecisionsUnit


def plan(shards: Sequence[Shard], embed: Manifest, select: Manifest, params: WriteParams) -> list[Unit]:
    """All units: the output tars in order, then the decisions of each input shard.

    Args:
        shards: the pool in canonical order, aligned with `embed.units` and `select.units`.
        embed: the embed artifact.
        select: the select artifact; each unit's counter `kept` is the number of its kept rows.
        params: see `WriteParams`.

    Raises:
        BooksError: the three lists are not aligned.
    """
    if not len(shards) == len(embed.units) == len(select.units):
        raise BooksError(
            f"write: {len(shards)} shards, {len(embed.units)} embedded and {len(select.units)} selected parts"
        )
    parts = [
        Part(i, shard, _bare(samples), _bare(decisions))
        for i, (shard, samples, decisions) in enumerate(zip(shards, embed.units, select.units, strict=True))
    ]
    kept = [unit.counters["kept"] for unit in select.units]
    units: list[Unit] = []
    for index, ranges in enumerate(assign(kept, params.samples_per_shard)):
        slices = tuple(Slice(parts[i], start, stop) for i, start, stop in ranges)
        identity = [(*_content(piece.part), piece.start, piece.stop) for piece in slices]
        units.append(TarUnit(artifacts.unit_key(f"{index:08d}", "tar", identity), index, slices))
    units.extend(
        DecisionsUnit(artifacts.unit_key(f"decisions-{part.index:08d}", "decisions", _content(part)), part)
        for part in parts
    )
    return units


def assign(kept: Sequence[int], samples_per_shard: int) -> list[list[tuple[int, int, int]]]:
    """Fill output shards densely from parts in order.

    Args:
        kept: kept rows of each part.
        samples_per_shard: rows of each output shard but the last.

    Returns:
        Per output shard its pieces (part, start, stop), counted among the part's kept rows; no empty piece or shard.
    """
    shards: list[list[tuple[int, int, int]]] = []
    room = 0
    for part, count in enumerate(kept):
        start = 0
        while start < count:
            if room == 0:
                shards.append([])
                room = samples_per_shard
            stop = min(count, start + room)
            shards[-1].append((part, start, stop))
            room -= stop - start
            start = stop
    return shards


def _bare(receipt: Receipt) -> Receipt:
    """Without what the worker does not need: units travel, and there may be a million."""
    return dataclasses.replace(receipt, counters={}, facts={})


def _content(part: Part) -> tuple[str, str, str, str]:
    """What decides the bytes a part gives: the object and both tables."""
    checksums = [
        next(file.checksum for file in receipt.files if file.name == name)
        for receipt, name in ((part.samples, SAMPLES), (part.decisions, DECISIONS))
    ]
    return storage.redact(part.shard.url), part.shard.version, checksums[0], checksums[1]


class Writer:
    """Writes one unit at a time. Memory: the tables of one input shard and at most 64 MiB of samples."""

    def __init__(self, work_dir: str, output: str) -> None:
        """Name the places.

        Args:
            work_dir: the run's; `embed` and `select` are read there and `write` gets the receipts.
            output: the output folder, already claimed.
        """
        self._embed = storage.join(work_dir, "embed")
        self._select = storage.join(work_dir, "select")
        self._write = storage.join(work_dir, "write")
        self._output = output

    def __call__(self, unit: Unit) -> Receipt:
        """Write the unit's objects, then its receipt.

        Raises:
            UserError: an input shard is gone or changed.
            InfrastructureError: storage failed, or an artifact is not the one planned on.
        """
        if isinstance(unit, DecisionsUnit):
            return self._decisions(unit)
        pieces = (
            (piece.part.shard.url, self._kept(piece)) for piece in unit.slices
        )
        written = write_shard(self._output, unit.index, pieces)
        counters = {"written": written.rows, **written.repairs}
        return artifacts.commit_unit(
            self._write, unit.key, {UIDS: written.uids}, counters, {"output": output_facts(written.files)}
        )

    def _kept(self, piece: Slice) -> pa.Table:
        samples, decisions = self._tables(piece.part)
        joined = samples
        for name in _DECISION_COLUMNS[1:]:
            joined = joined.append_column(name, decisions[name])
        return joined.filter(decisions["kept"]).slice(piece.start, piece.stop - piece.start)

    def _tables(self, part: Part, more: Sequence[str] = ()) -> tuple[pa.Table, pa.Table]:
        samples = artifacts.read_table(self._embed, part.samples, SAMPLES, _SAMPLE_COLUMNS)
        decisions = artifacts.read_table(self._select, part.decisions, DECISIONS, [*_DECISION_COLUMNS, *more])
        if not samples["uid"].equals(decisions["uid"]):
            raise InfrastructureError(f"{part.shard.name}: the rows of {SAMPLES} and {DECISIONS} are not the same samples")
        return samples, decisions

    def _decisions(self, unit: DecisionsUnit) -> Receipt:
        samples, decisions = self._tables(unit.part, ("reason", "suppression"))
        columns = [
            (decisions if name in decisions.column_names else samples)[name] for name in schemas.POOL_DECISIONS.names
        ]
        table = pa.Table.from_arrays(columns, schema=schemas.POOL_DECISIONS)
        record = put_table(self._output, layout.DECISIONS_FORMAT.format(unit.part.index), table)
        counters = {"listed": table.num_rows, "listed_kept": pc.sum(decisions["kept"]).as_py() or 0}
        return artifacts.commit_unit(self._write, unit.key, {}, counters, {"output": output_facts([record])})


@dataclass(frozen=True)
class WrittenShard:
    """What `write_shard` wrote: records of the output's objects, and the uids as bytes of a subset file's rows."""

    rows: int
    files: tuple[FileRecord, ...]
    uids: bytes
    repairs: Mapping[str, int]


def write_shard(output: str, index: int, pieces: Iterable[tuple[str, pa.Table]]) -> WrittenShard:
    """Write one output tar, its stats and its table.

    Args:
        output: URL of the output folder.
        index: number of the tar.
        pieces: (URL of an input tar, rows to copy from it). Rows have key, uid, offset, size, offsets ascending, and
            whatever else of `schemas.WRITTEN` is known.

    Raises:
        UserError: an input shard is gone or changed.
        InfrastructureError: storage failed.
    """
    names: list[str] = []
    tables: list[pa.Table] = []
    repairs: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    url = storage.join(output, layout.SHARD_FORMAT.format(index))
    with storage.writer(url) as sink:
        stream = TarStream(sink.write)
        for uid, members, fixed in _samples(pieces, tables):
            names.append(f"{uid}-{seen[uid]}")
            seen[uid] += 1
            repairs.update(fixed)
            stream.add(names[-1], members)
        stream.close()
    tar = FileRecord(layout.SHARD_FORMAT.format(index), None, stream.size, stream.checksum)
    table = _written_table(tables, names)
    stats = json.dumps({"successes": len(names)}).encode()
    files = (
        tar,
        put_bytes(output, layout.STATS_FORMAT.format(index), stats),
        put_table(output, layout.TABLE_FORMAT.format(index), table),
    )
    uids = subset.encode(table["uid"].to_pylist()).tobytes()
    return WrittenShard(len(names), files, uids, dict(repairs))


def _samples(
    pieces: Iterable[tuple[str, pa.Table]], tables: list[pa.Table]
) -> Iterator[tuple[str, list[tuple[str, bytes | memoryview]], tuple[str, ...]]]:
    """(uid, members to write, repairs) of every row; the tables that were read are appended to `tables`."""
    wanted: list[tuple[str, str, str, int]] = []

    def sources() -> Iterator[fetch.Source]:
        for url, table in pieces:
            offsets, sizes = table["offset"].to_pylist(), table["size"].to_pylist()
            keys, uids = table["key"].to_pylist(), table["uid"].to_pylist()
            tables.append(table)
            wanted.extend((url, key, uid, offset) for key, uid, offset in zip(keys, uids, offsets, strict=True))
            yield fetch.Source(url, offsets, sizes)

    for position, data in enumerate(fetch.read_samples(sources())):
        url, key, uid, offset = wanted[position]
        yield uid, *_members(data, url, key, offset)


def _members(
    data: memoryview, url: str, key: str, offset: int
) -> tuple[list[tuple[str, bytes | memoryview]], tuple[str, ...]]:
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
        f"{storage.redact(url)}: sample {key} is no longer at byte {offset} ({detail}); "
        "the tar changed while the run was under way; run again to embed what is there now"
    )


def _written_table(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """The rows with their new keys, in the columns of `schemas.WRITTEN`; columns nobody knows are null."""
    schema = schemas.WRITTEN
    if not tables:
        return schema.empty_table()
    rows = pa.concat_tables(tables)
    columns = []
    for field in schema:
        source = "key" if field.name == "source_key" else field.name
        if field.name == "key":
            columns.append(pa.chunked_array([pa.array(names, pa.string())]))
        elif source in rows.column_names:
            columns.append(rows[source].cast(field.type))
        else:
            columns.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
    return pa.Table.from_arrays(columns, schema=schema).combine_chunks()


def put_bytes(output: str, name: str, data: bytes, rows: int | None = None) -> FileRecord:
    """Write one small object of the output and tell its size and checksum."""
    storage.write_bytes(storage.join(output, name), data)
    return FileRecord(name, rows, len(data), storage.checksum(data))


def put_table(output: str, name: str, table: pa.Table) -> FileRecord:
    """Write one table of the output."""
    return put_bytes(output, name, artifacts.table_bytes(table.combine_chunks()), table.num_rows)


def output_facts(files: Iterable[FileRecord]) -> list[dict[str, object]]:
    """File records of the output as JSON values, for a receipt's facts."""
    return [dataclasses.asdict(file) for file in files]


def output_files(receipt: Receipt) -> list[FileRecord]:
    """The objects of the output folder that a unit wrote."""
    return [FileRecord(**record) for record in receipt.facts["output"]]


def present(output: str) -> dict[str, int]:
    """What lies in the output folder: name -> bytes."""
    prefix = len(storage.list_prefix(output))
    return {file.url[prefix:]: file.size for file in storage.list_files(output)}


def is_done(receipt: Receipt | None, listed: Mapping[str, int]) -> bool:
    """Whether a unit need not be done again.

    Args:
        receipt: the unit's, None where it has none.
        listed: `present(output)`, taken after the claim.
    """
    return receipt is not None and all(listed.get(file.name) == file.size for file in output_files(receipt))


def finished(work_dir: str, output: str, units: Sequence[Unit]) -> dict[str, Receipt]:
    """Receipts, by unit key, of the units that need not be done again."""
    folder = storage.join(work_dir, "write")
    listed = present(output)
    read: Callable[[str], Receipt | None] = lambda key: artifacts.read_receipt(folder, key)  # noqa: E731
    found = {unit.key: read(unit.key) for unit in units} if listed else {}
    return {key: receipt for key, receipt in found.items() if receipt is not None and is_done(receipt, listed)}
