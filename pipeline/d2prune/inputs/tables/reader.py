"""Read one part of a table pool in batches of rows: plain columns, and the embeddings of the same rows.

Reads the parquet file and the arrays beside it by byte ranges. Memory holds one batch, and the pages
of one row group.
Invariant: row i of the table and row i of every array are one sample, so their counts must agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.matrices import Matrix
from d2prune.inputs.tables.schema_check import BATCH_ROWS, check_width
from d2prune.inputs.tables.source import TableSource, open_source
from d2prune.inputs.tables.values import plain


@dataclass(frozen=True)
class TableBatch:
    """N consecutive rows of a table.

    Attributes:
        first: number of the first row in its table.
        values: the requested plain columns.
        image_ND: float16, float32 or float64; None where the pool has none. A row of zeros is a
            missing embedding.
        text_ND: as `image_ND`.
    """

    first: int
    values: pa.RecordBatch
    image_ND: NDArray[Any] | None
    text_ND: NDArray[Any] | None


@dataclass(frozen=True)
class OpenPart:
    """A part of a table whose files are open.

    Attributes:
        batches: its rows in order; a part without rows has one empty batch.
        rows: their numbers in the table.
        in_place: the arrays of its embeddings by name, if all can be read in place; else empty.
    """

    batches: Iterator[TableBatch]
    rows: range
    in_place: Mapping[str, Matrix]


@contextmanager
def open_part(
    shard: TableShard, columns: Columns, dimension: int, more: Sequence[str] = ()
) -> Iterator[OpenPart]:
    """Open a part.

    Args:
        shard: the part.
        columns: the names in the files.
        dimension: width of the pool's embeddings.
        more: further columns to read.

    Raises:
        UserError: a file is missing, changed, damaged, lacks a column or array, or has the wrong
            number of rows or dimensions; also from `batches`.
        InfrastructureError: the storage failed.
    """
    with open_source(shard.source) as source, ExitStack() as stack:
        table = source.table
        values = list(dict.fromkeys((*columns.values, *more)))
        rows = shard.rows(table.rows)
        if not table.rows:
            yield OpenPart(iter([_empty_batch(values, columns, dimension)]), rows, {})
            return
        table.require(values)
        matrices: dict[str, Matrix] = {}
        for name in columns.embeddings:
            where = source.locate(name)
            if where == "column":
                continue
            matrices[name] = stack.enter_context(source.open_matrix(name, where))
            check_width(source.describe(name, where), matrices[name].columns, dimension)
        if not rows:
            yield OpenPart(iter([_empty_batch(values, columns, dimension)]), rows, {})
            return
        copied = any(source.why_copied(name, matrices.get(name)) for name in columns.embeddings)
        batches = _read_batches(source, rows, columns, values, matrices, dimension)
        yield OpenPart(batches, rows, {} if copied else matrices)


def _read_batches(
    source: TableSource,
    rows: range,
    columns: Columns,
    values: Sequence[str],
    matrices: Mapping[str, Matrix],
    dimension: int,
) -> Iterator[TableBatch]:
    """Yield the rows of a part that has any."""
    lists = {name: _ListColumn(dimension) for name in columns.embeddings if name not in matrices}
    for first, batch in source.table.read_rows(rows, [*values, *lists], BATCH_ROWS):
        found = {
            name: matrices[name].read(first, first + len(batch))
            if name in matrices
            else lists[name].to_matrix(batch[name])
            for name in columns.embeddings
        }
        image_ND, text_ND = (
            None if name is None else found[name] for name in (columns.image_emb, columns.text_emb)
        )
        yield TableBatch(first, batch.select(values), image_ND, text_ND)
    for name, column in lists.items():
        if not column.n_complete:
            check_width(source.describe(name, "column"), column.other_width, dimension)


def _empty_batch(values: Sequence[str], columns: Columns, dimension: int) -> TableBatch:
    """Return a batch without rows. A table without rows may lack columns; an all-null one has every type."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(0)] * len(values), names=list(values))
    image_ND, text_ND = (
        None if name is None else np.zeros((0, dimension), np.float16)
        for name in (columns.image_emb, columns.text_emb)
    )
    return TableBatch(0, batch, image_ND, text_ND)


class _ListColumn:
    """Converts a column of lists to matrices.

    Attributes:
        n_complete: lists of the expected width so far.
        other_width: that of the first list of another width; None: there is none.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self.n_complete = 0
        self.other_width: int | None = None

    def to_matrix(self, column: pa.Array) -> NDArray[Any]:
        """Return floats [N, D], with zeros where a list is missing or has another length."""
        column = plain(column)
        if pa.types.is_null(column.type):
            return np.zeros((len(column), self._width), np.float16)
        if pa.types.is_fixed_size_list(column.type):
            valid_N = column.is_valid().to_numpy(zero_copy_only=False)
            length_N = np.where(valid_N, column.type.list_size, 0)
        else:
            length_N = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        complete_N = length_N == self._width
        others = length_N[(length_N > 0) & ~complete_N]
        self.n_complete += int(complete_N.sum())
        if self.other_width is None and len(others):
            self.other_width = int(others[0])
        kept = column if complete_N.all() else column.filter(pa.array(complete_N))
        values = kept.flatten()
        if values.null_count:
            values = values.cast(pa.float32()).fill_null(float("nan"))
        flat: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(kept), self._width)
        if len(kept) == len(column):
            return flat
        rows_ND = np.zeros((len(column), self._width), flat.dtype)
        rows_ND[complete_N] = flat
        return rows_ND
