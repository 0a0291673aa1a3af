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
from numpy.typing import NDArray

from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.matrices import Matrix
from d2prune.inputs.tables.schema_check import BATCH_ROWS, check_width
from d2prune.inputs.tables.source import open_source
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


def read_part(
    shard: TableShard, columns: Columns, dimension: int, more: Sequence[str] = ()
) -> Iterator[TableBatch]:
    """Yield the rows of a part in order. A part without rows yields one empty batch.

    Args:
        shard: the part.
        columns: the names in the files.
        dimension: width of the pool's embeddings.
        more: further columns to read.

    Raises:
        UserError: a file is missing, changed, damaged, lacks a column or array, or has the wrong
            number of rows or dimensions.
        InfrastructureError: the storage failed.
    """
    with open_source(shard.source) as source, ExitStack() as stack:
        table = source.table
        values = list(dict.fromkeys((*columns.values, *more)))
        rows = shard.rows(table.rows)
        if not table.rows:
            yield _empty_batch(values, columns, dimension)
            return
        table.require(values)
        matrices: dict[str, Matrix] = {}
        lists: dict[str, _ListColumn] = {}
        for name in columns.embeddings:
            where = source.locate(name)
            if where == "column":
                lists[name] = _ListColumn(dimension)
                continue
            matrices[name] = stack.enter_context(source.open_matrix(name, where))
            check_width(source.describe(name, where), matrices[name].columns, dimension)
        if not rows:
            yield _empty_batch(values, columns, dimension)
        for first, batch in table.read_rows(rows, [*values, *lists], BATCH_ROWS):
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
