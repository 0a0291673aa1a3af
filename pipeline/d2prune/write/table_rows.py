"""The kept samples of a part of a table pool: all that its table tells of them, and why they were kept.

Reads the rows of the source table that hold them, writes `kept-{p:08d}.parquet`: `schemas.KEPT`,
then every other column of the source but its embeddings. Memory: the kept rows.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.inputs.find import SourceShard
from d2prune.inputs.tables.column_names import open_table
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.reader import read_rows
from d2prune.output import layout, subset
from d2prune.output.shard_writer import UIDS, output_facts, put_table
from d2prune.store import FileInfo, artifacts, schemas
from d2prune.store.artifacts import Receipt

_BATCH_ROWS = 65_536


def write(
    output: str,
    folder: str,
    key: str,
    index: int,
    shard: SourceShard,
    rows: pa.Table,
    embeddings: Sequence[str],
) -> Receipt:
    """Write the table of a part's kept samples, then its receipt.

    Args:
        output: URL of the output folder.
        folder: where receipts go, `work_dir/write`.
        key: the unit's.
        index: number of the part.
        shard: the part.
        rows: its kept samples, `offset` ascending, with decisions.
        embeddings: columns of the source that are not wanted.

    Raises:
        UserError: the source is gone or changed.
        InfrastructureError: storage failed, or this is no part of a table.
    """
    if not isinstance(shard, TableShard):
        raise InfrastructureError(f"{shard.name}: a tar in a pool of tables")
    row_N = rows["offset"].to_numpy()
    source = take_rows(shard.source.table, row_N, (*embeddings, *schemas.KEPT.names))
    ours = [rows["offset" if name == "row" else name] for name in schemas.KEPT.names]
    schema = pa.schema([*schemas.KEPT, *source.schema])
    table = pa.Table.from_arrays([*ours, *source.columns], schema=schema)
    record = put_table(output, layout.KEPT_FORMAT.format(index), table)
    uids = subset.encode(table["uid"].to_pylist()).tobytes()
    counters = {"written": table.num_rows}
    return artifacts.commit_unit(folder, key, {UIDS: uids}, counters, {"output": output_facts([record])})


def take_rows(file: FileInfo, row_N: NDArray[np.int64], without: Sequence[str]) -> pa.Table:
    """Rows of a parquet file.

    Args:
        file: the parquet file.
        row_N: int64 [N], numbers of rows, ascending.
        without: columns to leave out.

    Raises:
        UserError: the file is gone or changed.
        InfrastructureError: it is shorter than that.
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
            f"{store.redact(file.url)}: {len(row_N)} rows expected, {found.num_rows} came"
        )
    return found
