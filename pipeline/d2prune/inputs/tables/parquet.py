"""Read a parquet file of the pool by byte ranges: its schema, and ranges of its rows.

Invariant: whatever the bytes, the result is the rows of the file or one error that names it. pyarrow
raises exceptions of many types on damaged files.
"""

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from d2prune import store
from d2prune.errors import D2PruneError, UserError
from d2prune.inputs.rejects import clean_line
from d2prune.inputs.tables.values import Kind, can_be_read
from d2prune.store import FileInfo
from d2prune.store.ranges import open_seekable

_STREAM_BYTES = 4 << 20
_MAX_LISTED = 50
_MAX_ERROR = 300


class ParquetTable:
    """An open parquet file.

    Attributes:
        shown: its URL, for messages.
        schema: its columns, each name once.
        rows: their number.
    """

    def __init__(self, file: pq.ParquetFile, shown: str) -> None:
        """Read the schema; raises UserError where `open_table` does."""
        self._file, self.shown = file, shown
        self.schema: pa.Schema = file.schema_arrow
        names: list[str] = self.schema.names
        repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if repeated:
            raise UserError(
                f"{shown}: {names.count(repeated[0])} columns are called {clean_line(repeated[0])}; "
                "expected each name once"
            )
        metadata = file.metadata
        self._group_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.rows: int = metadata.num_rows
        if min([0, *self._group_rows]) < 0 or sum(self._group_rows) != self.rows:
            raise UserError(f"{shown}: damaged: row groups of {sum(self._group_rows)} rows, not {self.rows}")

    def require(self, names: Sequence[str]) -> None:
        """Check that columns exist.

        Raises:
            UserError: some do not; the message lists those that do.
        """
        absent = [name for name in names if name not in self.schema.names]
        if absent:
            missing = clean_line(", ".join(absent))
            raise UserError(f"{self.shown}: has no column {missing}; found {self.list_columns()}")

    def require_kind(self, name: str, wanted: Kind) -> None:
        """Check the type of a column; raises UserError."""
        found = self.schema.field(name).type
        if not can_be_read(found, wanted):
            is_now = f"column {clean_line(name)} is {clean_line(str(found))}"
            raise UserError(f"{self.shown}: {is_now}; expected {wanted.expected}")

    def list_columns(self) -> str:
        """Return the names of the columns, for messages."""
        return clean_line(", ".join(self.schema.names[:_MAX_LISTED])) or "none"

    def read_rows(
        self, rows: range, names: Sequence[str], batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (number of the first row, batch) for a range of rows.

        Reads only the row groups they are in.

        Raises:
            UserError: the file is damaged.
        """
        groups: list[int] = []
        start = position = 0
        for group, count in enumerate(self._group_rows):
            stop = start + count
            if stop > rows.start and start < rows.stop:
                position = position if groups else start
                groups.append(group)
            start = stop
        # A batch without columns has no row count.
        chosen = list(names) or self.schema.names[:1]
        done = rows.start
        with _errors_that_name(self.shown):
            batches = self._file.iter_batches(
                batch_rows, row_groups=groups, columns=chosen, use_threads=False
            )
        while True:
            with _errors_that_name(self.shown):
                batch = next(batches, None)
                if batch is None:
                    break
                # Lengths and offsets of a damaged file may point outside its buffers.
                batch.validate()
            low, high = max(rows.start - position, 0), min(rows.stop - position, len(batch))
            if low < high:
                done += high - low
                yield position + low, batch.slice(low, high - low).select(list(names))
            position += len(batch)
        if done < rows.stop:
            raise UserError(f"{self.shown}: damaged: its rows end at {done}, not {rows.stop}")


@contextlib.contextmanager
def open_table(file: FileInfo) -> Iterator[ParquetTable]:
    """Open a parquet file that is read by byte ranges.

    Raises:
        UserError: it does not exist, changed during the run, is damaged or not parquet, or several
            columns have one name.
    """
    shown = store.redact(file.url)
    with open_seekable(file) as stream:
        with _errors_that_name(shown, "not parquet, or truncated"):
            opened = pq.ParquetFile(stream, buffer_size=_STREAM_BYTES, page_checksum_verification=True)
            table = ParquetTable(opened, shown)
        yield table


@contextlib.contextmanager
def _errors_that_name(shown: str, found: str = "damaged") -> Iterator[None]:
    """Turn what pyarrow raises on damaged bytes into a `UserError` that names the file."""
    try:
        yield
    except D2PruneError:
        raise
    except MemoryError as error:
        raise UserError(
            f"{shown}: not enough memory to read it, or damaged: {_format_error(error)}"
        ) from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{shown}: {found}: {_format_error(error)}") from error


def _format_error(error: BaseException) -> str:
    return clean_line(str(error))[:_MAX_ERROR] or type(error).__name__
