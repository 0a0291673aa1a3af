"""Read chosen rows of an input table, as the write stage copies them and `verify` compares them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.inputs.tables.column_names import open_table
from d2prune.inputs.tables.reader import read_rows
from d2prune.store import FileInfo

_BATCH_ROWS = 65_536


def read_source_rows(file: FileInfo, row_N: NDArray[np.int64], without: Sequence[str]) -> pa.Table:
    """Read rows of a parquet file. Memory: one batch, and the rows returned.

    Args:
        file: the parquet file.
        row_N: int64 [N], row numbers, ascending.
        without: columns to leave out.

    Raises:
        UserError: the file no longer exists, or changed.
        InfrastructureError: the file lacks some of the rows.
    """
    with open_table(file) as table:
        names = [name for name in table.schema_arrow.names if name not in without]
        if not names:
            return pa.table({})
        schema = pa.schema([table.schema_arrow.field(name) for name in names])
        taken = []
        if len(row_N):
            wanted = range(int(row_N[0]), int(row_N[-1]) + 1)
            for first, batch in read_rows(table, wanted, names, _BATCH_ROWS):
                low, high = np.searchsorted(row_N, [first, first + len(batch)])
                taken.append(batch.take(pa.array(row_N[low:high] - first)))
        found = pa.Table.from_batches(taken, schema=schema)
    if found.num_rows != len(row_N):
        raise InfrastructureError(
            f"{store.redact(file.url)}: found {found.num_rows} of the rows wanted; expected {len(row_N)}"
        )
    return found
