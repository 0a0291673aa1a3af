"""The embed stage of pools that are embedded already: one part of a table -> the same artifact, with no model.

Reads table files and arrays (`inputs.table_reader`), writes what `embed.stage` writes: `samples.parquet`,
`embeddings.parquet` and `rejects.parquet`, rows in table order. A sample's `offset` is its row in
the table and its `size` 0: it has no bytes to copy. Invariant: rows read = embedded + rejected.
Memory: a row group, and the part's uids.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.embed.decode.decoder import UID_FROM_HASH, FieldKind
from d2prune.embed.part import EMBEDDED, EMBEDDINGS, READ, REJECTED, UID_DUPLICATE
from d2prune.embed.tables.rows import Rows, convert
from d2prune.errors import UserError
from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.reader import read_part
from d2prune.parts.files import REJECTS, SAMPLES
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt
from d2prune.store.columns import vector_column
from d2prune.store.table_writer import open_table


@dataclass(frozen=True)
class ImportParams:
    """What decides the content of a part.

    Attributes:
        columns: the names in the pool's files.
        fields: columns to carry along, (name, kind).
    """

    columns: Columns
    fields: tuple[tuple[str, FieldKind], ...] = ()


@dataclass(frozen=True)
class ImportUnit:
    """One part of a table; `key` changes with the content of its files and with the params."""

    key: str
    shard: TableShard


def plan(shards: Sequence[TableShard], params: ImportParams) -> list[ImportUnit]:
    """One unit per part, in the pool's order."""
    units = []
    for shard in shards:
        share = f"-{shard.index + 1}of{shard.of}" if shard.of > 1 else ""
        units.append(ImportUnit(artifacts.unit_key(f"{shard.name}{share}", params, shard.identity), shard))
    return units


@dataclass(frozen=True)
class ImportWorker:
    """Imports one part per call.

    Attributes:
        folder: the stage's folder, `work_dir/embed`.
        params: what the units were planned with.
    """

    folder: str
    params: ImportParams

    def __call__(self, unit: ImportUnit) -> Receipt:
        """Reads, checks and commits one part.

        Raises:
            UserError: a file is gone, changed or damaged, or a column is not what it should be.
            InfrastructureError: storage failed.
            BooksError: a row is neither embedded nor rejected.
        """
        shard, params = unit.shard, self.params
        url = store.redact(shard.url)
        batches = read_part(shard, params.columns, [name for name, _ in params.fields])
        converted = (convert(batch, shard.name, url, params.columns, params.fields) for batch in batches)
        with contextlib.closing(converted):
            # Lists of no fixed length tell their width once one is there; rows before it can but be rejected.
            begun: list[Rows] = []
            widths: dict[str, int] = {}
            for rows in converted:
                begun.append(rows)
                widths = _widths(rows)
                if all(widths.values()):
                    break
            else:
                raise UserError(f"{url}: has no embedding in any row; leave it out of the input")
            counters: Counter[str] = Counter()
            uids: list[pa.ChunkedArray] = []
            vectors = pa.schema([(name, pa.binary(2 * width)) for name, width in widths.items()])
            with contextlib.ExitStack() as stack:
                samples, embeddings, rejects = (
                    stack.enter_context(open_table(self.folder, unit.key, name, schema))
                    for name, schema in (
                        (SAMPLES, schemas.samples(params.fields)),
                        (EMBEDDINGS, vectors),
                        (REJECTS, schemas.REJECTS),
                    )
                )
                for rows in itertools.chain(begun, converted):
                    counters.update(_books(rows))
                    rejects.write(_reject_table(shard.name, rows))
                    if rows.samples.num_rows:
                        samples.write(rows.samples)
                        sides = [side for side in (rows.image_MD, rows.text_MD) if side is not None]
                        embeddings.write(
                            pa.Table.from_arrays(list(map(vector_column, sides)), schema=vectors)
                        )
                        uids.append(rows.samples["uid"])
                books = {name: counters[name] for name in (EMBEDDED, REJECTED)}
                artifacts.balance(f"embed {unit.key}", counters[READ], books)
        distinct = pc.count_distinct(
            pa.chunked_array([c for uid in uids for c in uid.chunks], pa.string())
        ).as_py()
        counters[UID_DUPLICATE] = counters[EMBEDDED] - distinct
        if params.columns.uid is None:
            counters[UID_FROM_HASH] = counters[EMBEDDED]
        records = [writer.record for writer in (samples, embeddings, rejects) if writer.record is not None]
        others = {name: count for name, count in sorted(counters.items()) if count}
        counts = {READ: counters[READ], **books, **others}
        return artifacts.commit_receipt(self.folder, unit.key, records, counts, {"dimensions": widths})


def _widths(rows: Rows) -> dict[str, int]:
    """The dimensions of each side that there is."""
    sides = (("image_emb", rows.image_MD), ("text_emb", rows.text_MD))
    return {name: side.shape[1] for name, side in sides if side is not None}


def _books(rows: Rows) -> Counter[str]:
    books = Counter({READ: rows.read, EMBEDDED: rows.samples.num_rows, REJECTED: len(rows.rejects)})
    books.update(f"{REJECTED}.{reason}" for _, reason, _ in rows.rejects)
    return books


def _reject_table(shard: str, rows: Rows) -> pa.Table:
    columns: list[list[str]] = [[shard] * len(rows.rejects)]
    columns += [[reject[i] for reject in rows.rejects] for i in range(3)]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=schemas.REJECTS)


def check_dimensions(receipts: Sequence[Receipt]) -> None:
    """Refuses parts, or sides, whose embeddings are not equally long: they come from different models.

    Raises:
        UserError: names the part, or two of them.
    """
    told = [(receipt, receipt.facts["dimensions"]) for receipt in receipts if receipt.counters[READ]]
    first, expected = told[0]
    if len(set(expected.values())) > 1:
        raise UserError(
            f"input: embeddings of {first.key} have {_listed(expected)} dimensions; expected one model's "
            "(columns.text_emb: null leaves a side out)"
        )
    for receipt, widths in told[1:]:
        if widths != expected:
            raise UserError(
                f"input: embeddings of {receipt.key} have {_listed(widths)} dimensions, those of {first.key} "
                f"{_listed(expected)}; expected one model's"
            )


def _listed(widths: dict[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in sorted(widths.items()))
