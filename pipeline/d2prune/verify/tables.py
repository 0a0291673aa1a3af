"""One table of kept samples: each row against the row of the input that it says it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.write.table_rows import take_rows

_NAMED = 20


@dataclass(frozen=True)
class TableCheck:
    """A table to check, with what the manifest tells of it."""

    file: FileRecord

    @property
    def key(self) -> str:
        """Names the table in messages."""
        return self.file.name


@dataclass(frozen=True)
class TableChecker:
    """Checks one table at a time. Memory: its rows, and those of its source.

    Attributes:
        output: URL of the output folder.
        sources: name of each input table -> its URL.
        uid: column of the input that holds the uid, None where uids are hashes.
        samples: rows to compare with their source, None for all.
        seed: of the choice of rows.
    """

    output: str
    sources: Mapping[str, str]
    uid: str | None
    samples: int | None
    seed: int

    def __call__(self, check: TableCheck) -> tuple[TableCheck, list[str]]:
        """The table's faults, each beginning with its name."""
        data = store.read_bytes(store.join(self.output, check.key))
        try:
            table = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError):
            return check, [f"{check.key}: cannot be compared with its source"]
        if self.samples is not None and self.samples < table.num_rows:
            chosen = np.random.default_rng(self.seed).choice(table.num_rows, self.samples, replace=False)
            table = table.take(pa.array(np.sort(chosen)))
        found: list[str] = []
        for name in pc.unique(table["shard"]).to_pylist():
            found += self._compare(name, table.filter(pc.equal(table["shard"], name)))
        shown = found[:_NAMED] + ([f"{len(found) - _NAMED} faults more"] if len(found) > _NAMED else [])
        return check, [f"{check.key}: {fault}" for fault in shown]

    def _compare(self, name: str, rows: pa.Table) -> list[str]:
        """Rows against those of the table they come from, column by column."""
        if name not in self.sources:
            return [f"the manifest names no input table {name}"]
        try:
            file = store.info(self.sources[name])
            source = take_rows(file, rows["row"].to_numpy(), [])
        except (FileNotFoundError, UserError, InfrastructureError) as error:
            return [f"cannot be compared with its source: {error}"]
        names = [column for column in rows.column_names if column not in schemas.KEPT.names]
        faults = [
            f"{name}: its source has no column {column}"
            for column in names
            if column not in source.column_names
        ]
        if self.uid is not None and self.uid in source.column_names:
            given = pc.utf8_lower(source[self.uid].cast(pa.string()))
            if not given.equals(rows["uid"]):
                faults.append(f"{name}: its uids are not those in the source's column {self.uid}")
        for column in names:
            if column in source.column_names and not _equal(rows[column], source[column]):
                wrong = [
                    number
                    for number, mine, theirs in zip(
                        rows["row"].to_pylist(),
                        rows[column].to_pylist(),
                        source[column].to_pylist(),
                        strict=True,
                    )
                    if str(mine) != str(theirs)
                ]
                faults += [f"{name}, row {number}: {column} is not the source's" for number in wrong]
        return faults


def _equal(mine: pa.ChunkedArray, theirs: pa.ChunkedArray) -> bool:
    """Whether two columns hold the same; the text of NaN equals itself, which NaN does not."""
    return bool(mine.equals(theirs)) or str(mine.to_pylist()) == str(theirs.to_pylist())
