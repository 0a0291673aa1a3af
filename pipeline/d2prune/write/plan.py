"""Plan the write stage: which unit writes which objects of the output folder.

Kept samples in canonical order fill the output tars without gaps, so the bytes do not depend on
which worker writes which tar, or in which order. Unit keys contain the checksums of everything a
unit reads.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import BooksError
from d2prune.inputs.find import SourceShard
from d2prune.inputs.tables.files import TableShard
from d2prune.output.executable import KEEP_OPTION
from d2prune.output.layout import ShardFiles
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt


@dataclass(frozen=True)
class WriteParams:
    """What decides the output besides the selection.

    Attributes:
        samples_per_shard: samples in each output tar but the last.
    """

    samples_per_shard: int = 10_000

    @property
    def keeps_executable(self) -> bool:
        """Whether members that a loader would execute keep their names."""
        return bool(getattr(self, KEEP_OPTION, False))


@dataclass(frozen=True)
class KeepExecutableParams(WriteParams):
    """Parameters of `write.keep_executable_members: true`.

    A separate class, so that the fingerprints of all other outputs do not depend on the option.
    """

    keep_executable_members: bool = True


@dataclass(frozen=True)
class StableParams(WriteParams):
    """Parameters of `write.stable: true`, a separate class for the same reason."""

    keep_executable_members: bool = False
    stable: bool = True


@dataclass(frozen=True)
class PoolPart:
    """One part of the pool and its rows in two artifacts.

    Attributes:
        index: number of the part.
        shard: its tar, or its rows of a table.
        samples: receipt of its unit in the embed artifact, without counters and facts.
        decisions: receipt of its unit in the select artifact, without counters and facts.
    """

    index: int
    shard: SourceShard
    samples: Receipt
    decisions: Receipt


@dataclass(frozen=True)
class KeptRange:
    """Rows [start, stop) of a part, counted among its kept rows."""

    part: PoolPart
    start: int
    stop: int


@dataclass(frozen=True)
class TarUnit:
    """One output tar.

    Attributes:
        key: name of its receipt.
        index: its number.
        ranges: the rows to write, in order.
    """

    key: str
    index: int
    ranges: tuple[KeptRange, ...]


@dataclass(frozen=True)
class SharedTarUnit:
    """One tar that outputs share.

    Attributes:
        key: name of its receipt; depends on the samples alone, not on where they are.
        names: of its files.
        pieces: (part, int32 numbers of rows among the part's kept rows, ascending), in tar order.
    """

    key: str
    names: ShardFiles
    pieces: tuple[tuple[PoolPart, NDArray[np.int32]], ...]


@dataclass(frozen=True)
class KeptTableUnit:
    """The table of a part's kept samples.

    Attributes:
        key: name of its receipt.
        part: the part.
        left_out: columns of the source that are left out: the embeddings, and those that the output's
            own columns repeat.
        uid: column of the source that holds the uid, None where uids are hashes.
    """

    key: str
    part: PoolPart
    left_out: tuple[str, ...]
    uid: str | None


@dataclass(frozen=True)
class DecisionsUnit:
    """The table of decisions on all samples of a part, kept and dropped.

    Attributes:
        key: name of its receipt.
        part: the part.
        with_ids: whether the receipt keeps the identities of the kept samples.
    """

    key: str
    part: PoolPart
    with_ids: bool = False


Unit = TarUnit | SharedTarUnit | KeptTableUnit | DecisionsUnit


def plan(shards: Sequence[SourceShard], embed: Manifest, select: Manifest, params: WriteParams) -> list[Unit]:
    """List all units: the output tars or tables of kept samples in order, then the decisions of each part.

    Args:
        shards: the pool in canonical order, aligned with `embed.units` and `select.units`.
        embed: the embed artifact.
        select: the select artifact; the counter `kept` of each unit is its number of kept rows.
        params: see `WriteParams`.

    Raises:
        BooksError: the three sequences differ in length.
    """
    parts = list_parts(shards, embed, select)
    units: list[Unit] = []
    if any(isinstance(shard, TableShard) for shard in shards):
        units.extend(_plan_kept_tables(parts, embed))
    else:
        units.extend(_plan_tars(parts, [unit.counters["kept"] for unit in select.units], params))
    return [*units, *plan_decisions(parts)]


def list_parts(shards: Sequence[SourceShard], embed: Manifest, select: Manifest) -> list[PoolPart]:
    """The parts of the pool; arguments and errors as of `plan`."""
    if not len(shards) == len(embed.units) == len(select.units):
        raise BooksError(
            f"write: found {len(shards)} shards, {len(embed.units)} embedded parts and "
            f"{len(select.units)} selected parts; expected equal numbers"
        )
    return [
        PoolPart(i, shard, _drop_counters(samples), _drop_counters(decisions))
        for i, (shard, samples, decisions) in enumerate(zip(shards, embed.units, select.units, strict=True))
    ]


def plan_decisions(parts: Sequence[PoolPart], with_ids: bool = False) -> list[DecisionsUnit]:
    """The units that list all samples of each part."""
    kind = "decisions-ids" if with_ids else "decisions"
    return [
        DecisionsUnit(
            artifacts.unit_key(f"decisions-{part.index:08d}", kind, _identify_content(part)), part, with_ids
        )
        for part in parts
    ]


def assign(kept: Sequence[int], samples_per_shard: int) -> list[list[tuple[int, int, int]]]:
    """Fill output shards from the parts, in order and without gaps.

    Args:
        kept: kept rows of each part.
        samples_per_shard: rows of each output shard but the last.

    Returns:
        For each output shard its ranges (part, start, stop), counted among the part's kept rows. No
        range and no shard is empty.
    """
    shards: list[list[tuple[int, int, int]]] = []
    free = 0
    for part, count in enumerate(kept):
        start = 0
        while start < count:
            if free == 0:
                shards.append([])
                free = samples_per_shard
            stop = min(count, start + free)
            shards[-1].append((part, start, stop))
            free -= stop - start
            start = stop
    return shards


def _plan_tars(parts: Sequence[PoolPart], kept: Sequence[int], params: WriteParams) -> Iterator[TarUnit]:
    for index, assigned in enumerate(assign(kept, params.samples_per_shard)):
        ranges = tuple(KeptRange(parts[i], start, stop) for i, start, stop in assigned)
        identity = [(*_identify_content(kept.part), kept.start, kept.stop) for kept in ranges]
        kind = "tar-executable" if params.keeps_executable else "tar"
        yield TarUnit(artifacts.unit_key(f"{index:08d}", kind, identity), index, ranges)


def _plan_kept_tables(parts: Sequence[PoolPart], embed: Manifest) -> Iterator[KeptTableUnit]:
    columns = embed.params["columns"]
    left_out = [columns[side] for side in ("image_emb", "text_emb") if columns[side] is not None]
    left_out += [name for name in ("uid", "key", "clip_score") if columns[name] == name]
    for part in parts:
        identity = ("kept", _identify_content(part), left_out)
        key = artifacts.unit_key(f"kept-{part.index:08d}", *identity)
        yield KeptTableUnit(key, part, tuple(left_out), columns["uid"])


def _drop_counters(receipt: Receipt) -> Receipt:
    """Drop what workers do not need: units are sent to workers, and there may be a million."""
    return dataclasses.replace(receipt, counters={}, facts={})


def _identify_content(part: PoolPart) -> tuple[str, str, str, str]:
    """Identify everything that decides the bytes written from a part: its source object and both tables."""
    checksums = [
        next(file.checksum for file in receipt.files if file.name == name)
        for receipt, name in ((part.samples, SAMPLES), (part.decisions, DECISIONS))
    ]
    return store.recordable(part.shard.url), part.shard.version, checksums[0], checksums[1]
