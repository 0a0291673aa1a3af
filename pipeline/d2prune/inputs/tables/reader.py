"""Read one part of a table pool in batches of rows: plain columns, and the embeddings of the same rows.

Reads the parquet file and the arrays beside it by byte ranges. Memory holds one batch, and the pages
of one row group.
Invariant: row i of the table and row i of every array are one sample, so their counts must agree.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.tables.column_names import Columns, locate_embeddings, open_table
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.matrices import Matrix, open_npy, open_npz

BATCH_ROWS = 4096


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


def read_part(shard: TableShard, columns: Columns, more: Sequence[str] = ()) -> Iterator[TableBatch]:
    """Yield the rows of a part in order.

    A part without rows yields one empty batch, whose arrays still have the width of the embeddings.

    Args:
        shard: the part.
        columns: the names in the files.
        more: further columns to read.

    Raises:
        UserError: a file is missing, changed, damaged, lacks a column or array, or has the wrong
            number of rows.
        InfrastructureError: the storage failed.
    """
    source = shard.source
    shown = store.redact(source.table.url)
    with open_table(source.table) as table, ExitStack() as stack:
        schema, count = table.schema_arrow, table.metadata.num_rows
        values = list(dict.fromkeys((*columns.values, *more)))
        absent = [name for name in values if name not in schema.names]
        if absent:
            raise UserError(f"{shown}: has no column {', '.join(absent)}; found {', '.join(schema.names)}")
        matrices: dict[str, Matrix] = {}
        lists: dict[str, _ListColumn] = {}
        for name in columns.embeddings:
            where = locate_embeddings(source, schema, name)
            if where == "column":
                lists[name] = _ListColumn()
                continue
            file = source.npz if where == "npz" else source.arrays[name]
            assert file is not None
            matrix = stack.enter_context(open_npz(file, name) if where == "npz" else open_npy(file))
            if matrix.rows != count:
                raise UserError(
                    f"{shown} has {count} rows, but {name} in {store.redact(file.url)} has {matrix.rows}"
                )
            matrices[name] = matrix
        rows = shard.rows(count)
        batches = read_rows(table, rows, [*values, *lists])
        if not rows:
            kinds = pa.schema([schema.field(name) for name in (*values, *lists)])
            batches = iter([(rows.start, pa.RecordBatch.from_pylist([], schema=kinds))])
        for first, batch in batches:
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


def read_rows(
    table: pq.ParquetFile, rows: range, names: Sequence[str], batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row, batch) for a range of rows; reads only the row groups they are in."""
    groups: list[int] = []
    start = position = 0
    for group in range(table.metadata.num_row_groups):
        stop = start + table.metadata.row_group(group).num_rows
        if stop > rows.start and start < rows.stop:
            position = position if groups else start
            groups.append(group)
        start = stop
    # A batch without columns has no row count.
    chosen = list(names) or table.schema_arrow.names[:1]
    for batch in table.iter_batches(batch_rows, row_groups=groups, columns=chosen, use_threads=False):
        low, high = max(rows.start - position, 0), min(rows.stop - position, len(batch))
        if low < high:
            yield position + low, batch.slice(low, high - low).select(list(names))
        position += len(batch)


class _ListColumn:
    """Converts a column of lists to matrices. The first list that is not empty sets the width."""

    def __init__(self) -> None:
        self._width = 0

    def to_matrix(self, column: pa.Array) -> NDArray[Any]:
        """Return floats [N, D], with zeros where a list is missing or has another length."""
        if pa.types.is_fixed_size_list(column.type):
            self._width = column.type.list_size
            length_N = np.where(column.is_valid().to_numpy(zero_copy_only=False), self._width, 0)
        else:
            length_N = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        self._width = self._width or int(next(iter(length_N[length_N > 0].tolist()), 0))
        complete_N = (length_N == self._width) & (length_N > 0)
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
