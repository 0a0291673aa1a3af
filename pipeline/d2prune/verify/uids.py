"""Check that tables, subset file and decisions of an output folder list the same uids."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d2prune.errors import UserError
from d2prune.output import layout, subset
from d2prune.store.artifacts import FileRecord
from d2prune.verify.contents import Contents


def check_uids(contents: Contents) -> list[str]:
    """Compare the uids that the tables, the subset file and the decisions list.

    A list that cannot be read completely is left out of the comparison; the other two are compared.
    """
    return _UidCheck(contents).run()


class _UidCheck:
    """One pass over the tables of an output, which collects faults."""

    def __init__(self, contents: Contents) -> None:
        self._contents, self._manifest = contents, contents.manifest
        self._faults: list[str] = []

    def run(self) -> list[str]:
        manifest, faults = self._manifest, self._faults
        names = {layout.table_of(file.name) for file in manifest.tars}
        tables = manifest.kept_tables or [file for file in manifest.files if file.name in names]
        lists = [file for file in manifest.files if file.name.startswith(layout.DECISIONS_PREFIX)]
        written = self._read_all(tables, kept_only=False)
        listed = self._read_subset()
        kept = self._read_all(lists, kept_only=True) if lists else None
        if written is not None and listed is not None and not np.array_equal(written, listed):
            faults.append(f"{layout.SUBSET}: {_describe_difference(listed, written, 'the tables')}")
        if written is not None and kept is not None and not np.array_equal(kept, written):
            faults.append(f"decisions: {_describe_difference(kept, written, 'the tables')}")
        if written is None and listed is not None and kept is not None and not np.array_equal(kept, listed):
            faults.append(f"decisions: {_describe_difference(kept, listed, layout.SUBSET)}")
        rows, pool = sum(file.rows or 0 for file in lists), manifest.counts["pool"]
        if lists and rows != pool:
            faults.append(f"decisions: found {rows} rows; expected {pool}, one per sample of the pool")
        return faults

    def _read_subset(self) -> subset.UidArray | None:
        """Read the uids of the subset file, None if they cannot be read."""
        if all(file.name != layout.SUBSET for file in self._manifest.files):
            self._faults.append(f"{layout.SUBSET}: not in the manifest")
        data = self._contents.read(layout.SUBSET)
        try:
            return None if data is None else subset.parse(data, layout.SUBSET)
        except UserError as error:
            self._faults.append(str(error))
            return None

    def _read_all(self, files: Sequence[FileRecord], kept_only: bool) -> subset.UidArray | None:
        """Read the uids of several tables, sorted; None if a table is missing or cannot be read."""
        found = [self._read_table(file, kept_only) for file in files]
        complete = [uids for uids in found if uids is not None]
        if len(complete) != len(files):
            return None
        rows = np.concatenate([np.zeros(0, subset.DTYPE), *complete])
        return rows[subset.order(rows)]

    def _read_table(self, file: FileRecord, kept_only: bool) -> subset.UidArray | None:
        data = self._contents.read(file.name)
        if data is None:
            return None
        try:
            table = pq.read_table(pa.BufferReader(data), columns=["uid", "kept"] if kept_only else ["uid"])
            if table.num_rows != file.rows:
                self._faults.append(f"{file.name}: found {table.num_rows} rows; expected {file.rows}")
            uids = table.filter(table["kept"])["uid"] if kept_only else table["uid"]
            return subset.encode(uids.to_pylist())
        except (pa.ArrowException, OSError, ValueError) as error:
            self._faults.append(f"{file.name}: cannot be read: {' '.join(str(error).split())}")
            return None


def _describe_difference(found: subset.UidArray, expected: subset.UidArray, reference: str) -> str:
    """Describe how a list of uids differs from the list in `reference`; repeats count."""
    ours, theirs = Counter(subset.decode(found)), Counter(subset.decode(expected))
    unexpected, missing = ours - theirs, theirs - ours
    examples = sorted(unexpected | missing)[:3]
    return (
        f"found {len(found)} uids; expected the {len(expected)} in {reference}: "
        f"{unexpected.total()} unexpected, {missing.total()} missing, e.g. {', '.join(examples)}"
    )
