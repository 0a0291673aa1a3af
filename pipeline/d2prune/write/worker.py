"""The write stage: kept samples -> numbered output tars, each with its stats and table; and the pool's decisions.

Reads the embed artifact (byte ranges), the select artifact (decisions) and the input tars. Writes,
per output tar i of at most `samples_per_shard` samples: `{i:08d}.tar`, `{i:08d}_stats.json`,
`{i:08d}.parquet`; per input shard p: `decisions-{p:08d}.parquet`. The invariant: kept samples in
canonical order fill the tars densely, so who writes which tar, and in which order, shows nowhere in
the bytes. A unit's receipt is written after its objects.

A pool of tables has no bytes to copy: per part p there is `kept-{p:08d}.parquet` in the place of tars.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.errors import BooksError, InfrastructureError
from d2prune.inputs.find import SourceShard
from d2prune.inputs.tables.files import TableShard
from d2prune.output import layout
from d2prune.output.shard_writer import commit_shard, output_facts, output_files, put_table, write_shard
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.stage import units as stages
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.write import table_rows

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
    shard: SourceShard
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


@dataclass(frozen=True)
class KeptUnit:
    """The table of a part's kept samples.

    Attributes:
        key: names its receipt.
        part: the part.
        embeddings: columns of its source that are left out.
        uid: column of its source that holds the uid, None where uids are hashes.
    """

    key: str
    part: Part
    embeddings: tuple[str, ...]
    uid: str | None


Unit = TarUnit | KeptUnit | DecisionsUnit


def plan(shards: Sequence[SourceShard], embed: Manifest, select: Manifest, params: WriteParams) -> list[Unit]:
    """All units: the output tars in order, or the tables of kept samples, then the decisions of each input shard.

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
    units: list[Unit] = []
    if any(isinstance(shard, TableShard) for shard in shards):
        columns = embed.params["columns"]
        embeddings = tuple(columns[side] for side in ("image_emb", "text_emb") if columns[side] is not None)
        for part in parts:
            identity = ("kept", _content(part), embeddings)
            key = artifacts.unit_key(f"kept-{part.index:08d}", *identity)
            units.append(KeptUnit(key, part, embeddings, columns["uid"]))
    else:
        units.extend(_tars(parts, [unit.counters["kept"] for unit in select.units], params))
    units.extend(
        DecisionsUnit(artifacts.unit_key(f"decisions-{part.index:08d}", "decisions", _content(part)), part)
        for part in parts
    )
    return units


def _tars(parts: Sequence[Part], kept: Sequence[int], params: WriteParams) -> Iterator[TarUnit]:
    for index, ranges in enumerate(assign(kept, params.samples_per_shard)):
        slices = tuple(Slice(parts[i], start, stop) for i, start, stop in ranges)
        identity = [(*_content(piece.part), piece.start, piece.stop) for piece in slices]
        yield TarUnit(artifacts.unit_key(f"{index:08d}", "tar", identity), index, slices)


def assign(kept: Sequence[int], samples_per_shard: int) -> list[list[tuple[int, int, int]]]:
    """Fill output shards densely from parts in order.

    Args:
        kept: kept rows of each part.
        samples_per_shard: rows of each output shard but the last.

    Returns:
        Per output shard its pieces (part, start, stop), counted among the part's kept rows; no
        empty piece or shard.
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
    return store.redact(part.shard.url), part.shard.version, checksums[0], checksums[1]


class Writer:
    """Writes one unit at a time. Memory: the tables of one input shard and at most 64 MiB of samples."""

    def __init__(self, work_dir: str, output: str) -> None:
        """Name the places.

        Args:
            work_dir: the run's; `embed` and `select` are read there and `write` gets the receipts.
            output: the output folder, already claimed.
        """
        self._embed = store.join(work_dir, "embed")
        self._select = store.join(work_dir, "select")
        self._write = store.join(work_dir, "write")
        self._output = output

    def __call__(self, unit: Unit) -> Receipt:
        """Write the unit's objects, then its receipt.

        Raises:
            UserError: an input shard is gone or changed.
            InfrastructureError: storage failed, or an artifact is not the one planned on.
        """
        if isinstance(unit, DecisionsUnit):
            return self._decisions(unit)
        if isinstance(unit, KeptUnit):
            rows = self._kept(unit.part)
            return table_rows.write(
                self._output, self._write, unit.key, unit.part.index, unit.part.shard, rows, unit.embeddings
            )
        pieces = (
            (piece.part.shard.url, self._kept(piece.part).slice(piece.start, piece.stop - piece.start))
            for piece in unit.slices
        )
        written = write_shard(self._output, unit.index, pieces)
        return commit_shard(self._write, unit.key, written)

    def _kept(self, part: Part) -> pa.Table:
        samples, decisions = self._tables(part)
        joined = samples
        for name in _DECISION_COLUMNS[1:]:
            joined = joined.append_column(name, decisions[name])
        return joined.filter(decisions["kept"])

    def _tables(self, part: Part, more: Sequence[str] = ()) -> tuple[pa.Table, pa.Table]:
        samples = artifacts.read_table(self._embed, part.samples, SAMPLES, _SAMPLE_COLUMNS)
        decisions = artifacts.read_table(self._select, part.decisions, DECISIONS, [*_DECISION_COLUMNS, *more])
        if not samples["uid"].equals(decisions["uid"]):
            raise InfrastructureError(
                f"{part.shard.name}: the rows of {SAMPLES} and {DECISIONS} are not the same samples"
            )
        return samples, decisions

    def _decisions(self, unit: DecisionsUnit) -> Receipt:
        samples, decisions = self._tables(unit.part, ("reason", "suppression"))
        columns = [
            (decisions if name in decisions.column_names else samples)[name]
            for name in schemas.POOL_DECISIONS.names
        ]
        table = pa.Table.from_arrays(columns, schema=schemas.POOL_DECISIONS)
        record = put_table(self._output, layout.DECISIONS_FORMAT.format(unit.part.index), table)
        counters = {"listed": table.num_rows, "listed_kept": pc.sum(decisions["kept"]).as_py() or 0}
        return artifacts.commit_unit(self._write, unit.key, {}, counters, {"output": output_facts([record])})


def present(output: str) -> dict[str, int]:
    """What lies in the output folder: name -> bytes."""
    return {file.url.rsplit("/", 1)[-1]: file.size for file in store.list_files(output)}


def is_done(receipt: Receipt | None, listed: Mapping[str, int]) -> bool:
    """Whether a unit need not be done again.

    Args:
        receipt: the unit's, None where it has none.
        listed: `present(output)`, taken after the claim.
    """
    return receipt is not None and all(listed.get(file.name) == file.size for file in output_files(receipt))


def finished(work_dir: str, output: str, units: Sequence[stages.Unit]) -> dict[str, Receipt]:
    """Receipts, by unit key, of the units that need not be done again."""
    folder = store.join(work_dir, "write")
    listed = present(output)
    if not listed:
        return {}
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda unit: artifacts.read_receipt(folder, unit.key), units)
        return {receipt.key: receipt for receipt in found if receipt is not None and is_done(receipt, listed)}
