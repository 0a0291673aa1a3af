"""Write single objects of an output folder and return their records: name, rows, size, checksum."""

import pyarrow as pa

from d2prune import store
from d2prune.output import layout
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord


def write_object(output: str, name: str, data: bytes, rows: int | None = None) -> FileRecord:
    """Write one small object, before the receipt or manifest that names it.

    `rows` is its number of rows where it is a table.
    """
    store.write_bytes(layout.locate(output, name), data, store.Sync.LATER)
    return FileRecord(name, rows, len(data), store.checksum(data))


def write_table(output: str, name: str, table: pa.Table) -> FileRecord:
    """Write one table as parquet."""
    return write_object(output, name, artifacts.table_bytes(table.combine_chunks()), table.num_rows)
