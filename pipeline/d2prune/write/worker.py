"""Run the units of the write stage.

Reads the embed artifact (byte ranges), the select artifact (decisions) and the input tars or
tables. Writes, for each output tar i: `{i:08d}.tar`, `{i:08d}_stats.json` and `{i:08d}.parquet`;
for each part p of the pool: `decisions-{p:08d}.parquet`. With `write.stable`, tars and their tables are
`layout.ShardFiles.stable` beside the output. A pool of tables has no samples to copy:
its output has `kept-{p:08d}.parquet` for each part p instead of tars. A unit writes its receipt
after its objects.
"""

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.output import layout, receipts
from d2prune.output.layout import ShardFiles
from d2prune.output.objects import write_table
from d2prune.output.shard_writer import commit_shard, write_shard
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt
from d2prune.write.kept_tables import write_kept_table
from d2prune.write.plan import DecisionsUnit, KeptTableUnit, PoolPart, SharedTarUnit, TarUnit, Unit

_SAMPLE_COLUMNS = (
    "shard",
    "key",
    "uid",
    "offset",
    "size",
    "checksum",
    "caption",
    "width",
    "height",
    "clip_score",
)
_COPIED_COLUMNS = ("key", "uid", "offset", "size", "checksum")
_DECISION_COLUMNS = ("uid", "difficulty", "forward_score", "selection_score", "kept", "suppressed_by")


class WriteWorker:
    """Writes one unit per call. Memory: the tables of one part, and at most 64 MiB of samples."""

    def __init__(self, work_dir: str, output: str, keep_executable: bool = False) -> None:
        """Set the folders to read from and write to.

        Args:
            work_dir: holds the artifacts `embed` and `select`; receipts go to `write`.
            output: URL of the output folder, already claimed.
            keep_executable: whether members that a loader would execute keep their names.
        """
        self._work_dir, self._output, self._keep_executable = work_dir, output, keep_executable
        self._embed = store.join(work_dir, "embed")
        self._select = store.join(work_dir, "select")

    def __call__(self, unit: Unit) -> Receipt:
        """Write the unit's objects, then its receipt.

        Raises:
            UserError: an input shard no longer exists, or a sample is not what was embedded.
            InfrastructureError: storage failed, or an artifact does not match its receipt.
        """
        match unit:
            case TarUnit():
                return self._write_tar(unit)
            case SharedTarUnit():
                return self._write_shared_tar(unit)
            case KeptTableUnit():
                return self._write_kept_table(unit)
            case DecisionsUnit():
                return self._write_decisions(unit)

    def _write_tar(self, unit: TarUnit) -> Receipt:
        pieces = (
            (kept.part.shard.url, self._read_kept_rows(kept.part).slice(kept.start, kept.stop - kept.start))
            for kept in unit.ranges
        )
        versions = {kept.part.shard.url: kept.part.shard.version for kept in unit.ranges}
        written = write_shard(
            self._output,
            ShardFiles.numbered(unit.index),
            pieces,
            keep_executable=self._keep_executable,
            versions=versions,
        )
        return commit_shard(self._work_dir, unit.key, written)

    def _write_shared_tar(self, unit: SharedTarUnit) -> Receipt:
        # The samples of old tars are from many parts, in turn: each part is read once.
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        for number, (part, _) in enumerate(unit.pieces):
            numbers[part.index].append(number)
        tables: dict[int, pa.Table] = {}
        for of_part in numbers.values():
            kept = self._read_kept_rows(unit.pieces[of_part[0]][0]).select(_COPIED_COLUMNS)
            for number in of_part:
                tables[number] = kept.take(pa.array(unit.pieces[number][1]))
        pieces = ((part.shard.url, tables[number]) for number, (part, _) in enumerate(unit.pieces))
        versions = {part.shard.url: part.shard.version for part, _ in unit.pieces}
        written = write_shard(
            self._output, unit.names, pieces, keep_executable=self._keep_executable, versions=versions
        )
        return commit_shard(self._work_dir, unit.key, written)

    def _write_kept_table(self, unit: KeptTableUnit) -> Receipt:
        rows = self._read_kept_rows(unit.part)
        record, uids = write_kept_table(self._output, unit.part, rows, unit.left_out)
        return receipts.commit_unit(self._work_dir, unit.key, [record], {"written": len(uids)}, uids)

    def _write_decisions(self, unit: DecisionsUnit) -> Receipt:
        samples, decisions = self._read_tables(unit.part, ("reason", "suppression"))
        columns = [
            (decisions if name in decisions.column_names else samples)[name]
            for name in schemas.POOL_DECISIONS.names
        ]
        table = pa.Table.from_arrays(columns, schema=schemas.POOL_DECISIONS)
        record = write_table(self._output, layout.DECISIONS_FORMAT.format(unit.part.index), table)
        counters = {"listed": table.num_rows, "listed_kept": pc.sum(decisions["kept"]).as_py() or 0}
        ids = []
        if unit.with_ids:
            ids = [samples[name].filter(decisions["kept"]) for name in ("uid", "checksum")]
        return receipts.commit_unit(self._work_dir, unit.key, [record], counters, *ids)

    def _read_kept_rows(self, part: PoolPart) -> pa.Table:
        """Read the kept samples of a part, with their decisions."""
        samples, decisions = self._read_tables(part)
        joined = samples
        for name in _DECISION_COLUMNS[1:]:
            joined = joined.append_column(name, decisions[name])
        return joined.filter(decisions["kept"])

    def _read_tables(self, part: PoolPart, more: Sequence[str] = ()) -> tuple[pa.Table, pa.Table]:
        """Read the samples of a part and the decisions on them, row by row the same samples."""
        samples = artifacts.read_table(self._embed, part.samples, SAMPLES, _SAMPLE_COLUMNS)
        decisions = artifacts.read_table(self._select, part.decisions, DECISIONS, [*_DECISION_COLUMNS, *more])
        if not samples["uid"].equals(decisions["uid"]):
            raise InfrastructureError(
                f"{part.shard.name}: {SAMPLES} and {DECISIONS} list different samples; expected equal uids"
            )
        return samples, decisions
