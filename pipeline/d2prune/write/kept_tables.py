"""Write the table of kept samples of one part of a table pool.

Reads the rows of the source table that hold the samples; writes `kept-{p:08d}.parquet`: the columns
of `schemas.KEPT`, then every other column of the source except its embeddings, under the names of
`name_kept_columns`. Memory: the kept rows.
"""

from collections.abc import Sequence

import pyarrow as pa

from d2prune.errors import InfrastructureError
from d2prune.inputs.tables.files import TableShard
from d2prune.output import layout
from d2prune.output.objects import write_table
from d2prune.output.source_rows import name_kept_columns, read_source_rows
from d2prune.store import schemas
from d2prune.store.artifacts import FileRecord
from d2prune.write.plan import PoolPart


def write_kept_table(
    output: str, part: PoolPart, rows: pa.Table, left_out: Sequence[str]
) -> tuple[FileRecord, pa.ChunkedArray]:
    """Write the table of a part's kept samples.

    Args:
        output: URL of the output folder.
        part: the part.
        rows: its kept samples with their decisions, `offset` (the row number) ascending.
        left_out: columns of the source to leave out.

    Returns:
        The record of the table, and the uids of its rows.

    Raises:
        UserError: the source no longer exists, or changed.
        InfrastructureError: storage failed, or the part is not a part of a table.
    """
    shard = part.shard
    if not isinstance(shard, TableShard):
        raise InfrastructureError(f"{shard.name}: found a tar in a pool of tables; expected a table")
    row_N = rows["offset"].to_numpy()
    source = read_source_rows(shard.source.table, row_N, left_out)
    own_columns = [rows["offset" if name == "row" else name] for name in schemas.KEPT.names]
    names = name_kept_columns(source.column_names)
    copied = [field.with_name(names[field.name]) for field in source.schema]
    schema = pa.schema([*schemas.KEPT, *copied])
    table = pa.Table.from_arrays([*own_columns, *source.columns], schema=schema)
    return write_table(output, layout.KEPT_FORMAT.format(part.index), table), table["uid"]
