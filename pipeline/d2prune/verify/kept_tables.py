"""Check one table of kept samples: each row against the row of the input table that it was copied from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import InfrastructureError, UserError
from d2prune.inputs.tables.values import read_uids
from d2prune.output.source_rows import name_kept_columns, read_source_rows, take_rows
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.verify.faults import label_faults


@dataclass(frozen=True)
class KeptTableCheck:
    """A table to check, as the manifest records it."""

    file: FileRecord

    @property
    def key(self) -> str:
        """Name of the table, for messages."""
        return self.file.name


@dataclass(frozen=True)
class KeptTableChecker:
    """Checks one table per call. Memory: its rows, and those of its source.

    Attributes:
        output: URL of the output folder.
        sources: name of each input table -> its URL.
        uid: column of the input that holds the uid, None where uids are hashes.
        samples: rows to compare with their source, None for all.
        seed: seed of the choice of rows.
    """

    output: str
    sources: Mapping[str, str]
    uid: str | None
    samples: int | None
    seed: int

    def __call__(self, check: KeptTableCheck) -> tuple[KeptTableCheck, list[str]]:
        """Return the faults of the table."""
        data = store.read_bytes(store.join(self.output, check.key))
        try:
            table = pq.read_table(pa.BufferReader(data))
            table.select(schemas.KEPT.names).cast(schemas.KEPT).validate(full=True)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return check, [f"{check.key}: cannot be compared with its source"]
        if self.samples is not None and self.samples < table.num_rows:
            chosen = np.random.default_rng(self.seed).choice(table.num_rows, self.samples, replace=False)
            table = take_rows(table, np.sort(chosen))
        faults: list[str] = []
        for name in pc.unique(table["shard"]).to_pylist():
            mine = np.flatnonzero(pc.equal(table["shard"], name).to_numpy())
            faults += self._compare_with_source(name, take_rows(table, mine))
        return check, label_faults(check.key, faults)

    def _compare_with_source(self, name: str, rows: pa.Table) -> list[str]:
        """Compare rows with those of the input table `name`, column by column."""
        if name not in self.sources:
            return [f"input table {name} is not in the manifest"]
        try:
            file = store.info(self.sources[name])
            source = read_source_rows(file, rows["row"].to_numpy(), [])
        except (FileNotFoundError, UserError, InfrastructureError) as error:
            return [f"cannot be compared with its source: {error}"]
        columns = [column for column in rows.column_names if column not in schemas.KEPT.names]
        source_of = {kept: column for column, kept in name_kept_columns(source.column_names).items()}
        faults = [
            f"{name}: the source has no column {column}" for column in columns if column not in source_of
        ]
        if self.uid is not None and self.uid in source.column_names:
            given = [read_uids(chunk) for chunk in source[self.uid].chunks]
            if not pa.chunked_array(given, pa.string()).equals(rows["uid"]):
                faults.append(f"{name}: uids differ from column {self.uid} of the source")
        for column in columns:
            if column in source_of:
                faults += [
                    f"{name}, row {number}: {column} differs from the source"
                    for number in _find_different_rows(rows["row"], rows[column], source[source_of[column]])
                ]
        return faults


def _find_different_rows(
    numbers: pa.ChunkedArray, found: pa.ChunkedArray, expected: pa.ChunkedArray
) -> list[int]:
    """Return the numbers of the rows whose values differ. NaN equals NaN, as values are compared as text."""
    if found.equals(expected):
        return []
    rows = zip(numbers.to_pylist(), found.to_pylist(), expected.to_pylist(), strict=True)
    return [number for number, ours, theirs in rows if str(ours) != str(theirs)]
