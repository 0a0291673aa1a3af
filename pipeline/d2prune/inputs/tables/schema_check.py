"""Check the files of a table pool before a run starts: footers and array headers, no rows.

A fault of one file would otherwise end the run hours later, in the worker that reads it.
Invariant: `check_files` passes a pool if every file has the columns and arrays that the run reads, of
types that it can read, and as many rows in each array as in its table.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.errors import UserError
from d2prune.inputs.rejects import clean_line
from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.files import TableFile
from d2prune.inputs.tables.matrices import MAX_DIMENSIONS
from d2prune.inputs.tables.parquet import ParquetTable, open_table
from d2prune.inputs.tables.source import open_source
from d2prune.inputs.tables.values import NUMBER, TEXT, UID, Kind, fixed_width, plain, read_texts, read_uids

BATCH_ROWS = 4096
_THREADS = 16
_SHOWN = 60


def kinds_of(columns: Columns, fields: Sequence[tuple[str, str]]) -> list[tuple[str, Kind]]:
    """Return the plain columns to read, and what each is read as; a column may be read as several."""
    named = (
        (columns.clip_score, NUMBER),
        (columns.uid, UID),
        (columns.key, TEXT),
        (columns.caption, TEXT),
        (columns.width, NUMBER),
        (columns.height, NUMBER),
        *((name, NUMBER if kind == "number" else TEXT) for name, kind in fields),
    )
    return [(name, kind) for name, kind in named if name is not None]


def check_files(
    files: Sequence[TableFile], columns: Columns, fields: Sequence[tuple[str, str]], dimension: int
) -> list[str]:
    """Check all files, several at a time.

    Args:
        files: the pool's files.
        columns: the names to read.
        fields: columns to carry along, (name, `number` or `text`).
        dimension: width of every embedding.

    Returns:
        Why embeddings have to be copied, for each file whose embeddings cannot be read in place.

    Raises:
        UserError: for the first file, in order, that has a fault.
    """
    kinds = kinds_of(columns, fields)
    threads = ThreadPoolExecutor(min(_THREADS, len(files) or 1))
    try:
        found = threads.map(lambda file: _check_file(file, columns, kinds, dimension), files)
        return [reason for reason in found if reason is not None]
    finally:
        threads.shutdown(cancel_futures=True)


def _check_file(
    file: TableFile, columns: Columns, kinds: Sequence[tuple[str, Kind]], dimension: int
) -> str | None:
    reason: str | None = None
    with open_source(file) as source:
        table = source.table
        if table.rows:
            table.require([name for name, _ in kinds])
            for name, kind in kinds:
                table.require_kind(name, kind)
        for name in columns.embeddings:
            # A table without rows may lack the columns that others have.
            if not table.rows and name not in source.list_arrays():
                continue
            where = source.locate(name)
            width = fixed_width(table.schema.field(name).type) if where == "column" else None
            if where != "column":
                with source.open_matrix(name, where) as matrix:
                    width = matrix.columns if matrix.rows else None
                    reason = reason or source.why_copied(name, matrix)
            elif table.rows:
                reason = reason or source.why_copied(name, None)
            check_width(source.describe(name, where), width, dimension)
    return reason


def check_width(where: str, width: int | None, dimension: int) -> None:
    """Check the width of embeddings, None where it is unknown.

    Raises:
        UserError: it is not `dimension`; other widths come from other models.
    """
    if width is not None and width != dimension:
        raise UserError(
            f"{where} has {width} dimensions; expected {dimension}, as other embeddings of the input"
        )


def find_dimension(files: Sequence[TableFile], columns: Columns) -> int:
    """Find the width of the pool's embeddings: that of the first one.

    Reads headers and types only, except for lists of variable length.

    Raises:
        UserError: no row has an embedding, or image and text embeddings differ in width.
    """
    widths = {name: _find_width(files, name) for name in columns.embeddings}
    first = next(iter(widths.values()))
    if set(widths.values()) != {first}:
        found = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise UserError(
            f"input: the embeddings in {store.redact(files[0].table.url)} have {found} dimensions; "
            "expected one model's (columns.text_emb: null excludes that side)"
        )
    return first


def _find_width(files: Sequence[TableFile], name: str) -> int:
    for file in files:
        with open_source(file) as source:
            table = source.table
            if not table.rows:
                continue
            where = source.locate(name)
            if where != "column":
                with source.open_matrix(name, where) as matrix:
                    return matrix.columns
            width = fixed_width(table.schema.field(name).type) or _find_list_width(table, name)
            shown = source.describe(name, where)
        if width > MAX_DIMENSIONS:
            raise UserError(f"{shown}: {width} dimensions; expected at most {MAX_DIMENSIONS}")
        if width:
            return width
    raise UserError(
        f"input: no row has an embedding in column {clean_line(name)}: {len(files)} files, such as "
        f"{store.redact(files[0].table.url)}"
    )


def _find_list_width(table: ParquetTable, name: str) -> int:
    """Return the length of the first list that is not empty, 0 if there is none."""
    for _, batch in table.read_rows(range(table.rows), [name], BATCH_ROWS):
        column = plain(batch[name])
        if pa.types.is_null(column.type):
            return 0
        lengths = pc.list_value_length(column).drop_null()
        filled = lengths.filter(pc.greater(lengths, 0))
        if len(filled):
            return int(filled[0].as_py())
    return 0


def check_uids(files: Sequence[TableFile], name: str) -> None:
    """Check that the first rows of the pool have uids, since a wrong column has none at all.

    Raises:
        UserError: none of the values is a uid.
    """
    for file in files:
        with open_table(file.table) as table:
            for _, batch in table.read_rows(range(table.rows), [name] if table.rows else [], BATCH_ROWS):
                given = batch[name]
                if given.null_count == len(given):
                    continue
                if read_uids(given).null_count == len(given):
                    (first, *_) = np.flatnonzero(given.is_valid()).tolist()
                    text = read_texts(given.slice(first, 1))[0][0].as_py()
                    raise UserError(
                        f"{table.shown}: column {clean_line(name)}: found {clean_line(text)[:_SHOWN]}; "
                        f"expected {UID.expected}"
                    )
                return
