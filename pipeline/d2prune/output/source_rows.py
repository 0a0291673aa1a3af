"""Read chosen rows of an input table, as the write stage copies them and `verify` compares them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.inputs.tables.parquet import open_table
from d2prune.store import FileInfo, schemas

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
        names = [name for name in table.schema.names if name not in without]
        if not names:
            return pa.table({})
        schema = pa.schema([table.schema.field(name) for name in names])
        taken = []
        if len(row_N):
            wanted = range(int(row_N[0]), int(row_N[-1]) + 1)
            for first, batch in table.read_rows(wanted, names, _BATCH_ROWS):
                low, high = np.searchsorted(row_N, [first, first + len(batch)])
                taken.append(take_rows(pa.Table.from_batches([batch]), row_N[low:high] - first))
        found = pa.concat_tables([schema.empty_table(), *taken])
    if found.num_rows != len(row_N):
        raise InfrastructureError(
            f"{store.redact(file.url)}: found {found.num_rows} of the rows wanted; expected {len(row_N)}"
        )
    return found


def name_kept_columns(names: Sequence[str]) -> dict[str, str]:
    """Name the columns of an input table in a table of kept samples.

    Args:
        names: all columns of the input table.

    Returns:
        Name in the input -> name in the output. A name that d2prune's own columns use gets the prefix
        `source_`, so that no column of a user is lost.
    """
    taken = {*schemas.KEPT.names, *names}
    found = {}
    for name in names:
        kept = name
        if name in schemas.KEPT.names:
            while kept in taken:
                kept = f"source_{kept}"
            taken.add(kept)
        found[name] = kept
    return found


def take_rows(table: pa.Table, row_M: NDArray[np.int64]) -> pa.Table:
    """Return the rows with these numbers, whatever the types of the columns."""
    try:
        return table.take(pa.array(row_M))
    except pa.ArrowNotImplementedError:
        # Types that pyarrow cannot gather, such as string_view; it can slice and concatenate all.
        return pa.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in row_M.tolist())])
