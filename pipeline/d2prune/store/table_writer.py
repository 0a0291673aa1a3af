"""A unit's table written as its rows arrive, so that memory holds one row group."""

import contextlib
import io
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import FileRecord
from d2prune.store.parquet_format import footer_checksum, parquet_options


class TableWriter:
    """Writes rows in groups of a fixed size, so the bytes do not depend on how the rows arrive.

    Attributes:
        schema: of the table.
        record: of the file; None until `close`.
    """

    def __init__(self, name: str, stream: IO[bytes], schema: pa.Schema, rows_per_group: int) -> None:
        """Write nothing yet; arguments as of `open_table`."""
        self.schema = schema
        self._name, self._rows_per_group = name, rows_per_group
        self._sink = _ChecksumStream(stream)
        self._parquet = pq.ParquetWriter(self._sink, schema, **parquet_options(schema))
        self._pending: list[pa.Table] = []
        self._n_pending = self._n_written = 0
        self.record: FileRecord | None = None

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._pending.append(table)
        self._n_pending += table.num_rows
        while self._n_pending >= self._rows_per_group:
            self._write_group(self._rows_per_group)

    def _write_group(self, rows: int) -> None:
        table = pa.concat_tables(self._pending).combine_chunks()
        self._parquet.write_table(table.slice(0, rows))
        self._pending, self._n_pending = [table.slice(rows)], table.num_rows - rows
        self._n_written += rows

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        if self._n_pending or not self._n_written:
            self._pending = self._pending or [self.schema.empty_table()]
            self._write_group(self._n_pending)
        sink = self._sink
        sink.end = bytearray()
        self._parquet.close()
        footer = footer_checksum(bytes(sink.end))
        self.record = FileRecord(self._name, self._n_written, sink.size, sink.digest.hexdigest(), footer)

    def abandon(self) -> None:
        """Detach from the file, to which pyarrow would write a footer when it is collected."""
        self._sink.stream = None
        with contextlib.suppress(Exception):
            self._parquet.close()


class _ChecksumStream(io.RawIOBase):
    """Forwards writes, and keeps their checksum and size; the bytes, too, once `end` is set."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self.stream, self.size, self.digest = stream, 0, store.new_checksum()
        self.end: bytearray | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.stream is not None:
            self.stream.write(data)
        self.digest.update(data)
        if self.end is not None:
            self.end += data
        self.size += len(data)
        return len(data)


@contextlib.contextmanager
def open_table(
    folder: str, key: str, name: str, schema: pa.Schema, rows_per_group: int = artifacts.ROWS_PER_GROUP
) -> Iterator[TableWriter]:
    """Write a table of a unit; the file appears when the block ends without an error.

    Args:
        folder: the stage's folder, `work_dir/<stage>`.
        key: the unit's key.
        name: of the file.
        schema: of the table.
        rows_per_group: rows of each parquet row group but the last.
    """
    with store.writer(artifacts.unit_url(folder, key, name), store.Sync.LATER) as stream:
        writer = TableWriter(name, stream, schema, rows_per_group)
        try:
            yield writer
            writer.close()
        except BaseException:
            writer.abandon()
            raise
