"""The worker of the embed stage for tables: imports embeddings that already exist, without a model.

Reads table files and arrays (`inputs.tables.reader`) and writes what `embed.worker` writes:
`samples.parquet`, `embeddings.parquet` and `rejects.parquet`, rows in table order. A sample's
`offset` is its row in the table and its `size` is 0, since it has no bytes to copy.
Invariant: rows read = embedded + rejected. Memory holds a row group, and the part's uids.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.embed.decode.decoder import FieldKind
from d2prune.embed.part import EMBEDDED, EMBEDDINGS, READ, REJECTED, UID_DUPLICATE, reject_table
from d2prune.embed.tables.convert import ConvertedBatch, convert_batch
from d2prune.errors import UserError
from d2prune.inputs.sample_id import UID_FROM_HASH
from d2prune.inputs.tables.column_names import Columns
from d2prune.inputs.tables.files import TableShard
from d2prune.inputs.tables.reader import read_part
from d2prune.parts.files import REJECTS, SAMPLES
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.columns import vector_column
from d2prune.store.table_writer import open_table


@dataclass(frozen=True)
class ImportParams:
    """Everything that determines the content of a part; hashed into unit keys and fingerprints.

    Attributes:
        columns: the names in the pool's files.
        fields: columns to carry along, (name, kind).
    """

    columns: Columns
    fields: tuple[tuple[str, FieldKind], ...] = ()


@dataclass(frozen=True)
class ImportUnit:
    """One part of a table; `key` identifies the content of its files and the params."""

    key: str
    shard: TableShard


def plan(shards: Sequence[TableShard], params: ImportParams) -> list[ImportUnit]:
    """Return one unit per part, in the pool's order."""
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
        params: with which the units were planned.
    """

    folder: str
    params: ImportParams

    def __call__(self, unit: ImportUnit) -> Receipt:
        """Read, check and commit one part.

        Raises:
            UserError: a file is missing, changed or damaged, or a column has the wrong type.
            InfrastructureError: storage failed.
            BooksError: a row is neither embedded nor rejected.
        """
        shard, params = unit.shard, self.params
        url = store.redact(shard.url)
        batches = read_part(shard, params.columns, [name for name, _ in params.fields])
        converted = (
            convert_batch(batch, shard.name, url, params.columns, params.fields) for batch in batches
        )
        with contextlib.closing(converted):
            first_batches, widths = _read_until_widths_known(converted, url)
            rows = itertools.chain(first_batches, converted)
            counters, records = self._write_part(unit, rows, widths)
        others = {name: count for name, count in sorted(counters.items()) if count}
        counts = {name: counters[name] for name in (READ, EMBEDDED, REJECTED)} | others
        facts = {"dimensions": widths, "sources": [list(file) for file in shard.file_versions]}
        return artifacts.commit_receipt(self.folder, unit.key, records, counts, facts)

    def _write_part(
        self, unit: ImportUnit, converted: Iterable[ConvertedBatch], widths: dict[str, int]
    ) -> tuple[Counter[str], list[FileRecord]]:
        """Write the tables of a part; return its counters and files."""
        counters: Counter[str] = Counter()
        uids: list[pa.ChunkedArray] = []
        vectors = pa.schema([(name, pa.binary(2 * width)) for name, width in widths.items()])
        schemas_of = {
            SAMPLES: schemas.samples(self.params.fields),
            EMBEDDINGS: vectors,
            REJECTS: schemas.REJECTS,
        }
        with contextlib.ExitStack() as stack:
            samples, embeddings, rejected = (
                stack.enter_context(open_table(self.folder, unit.key, name, schema))
                for name, schema in schemas_of.items()
            )
            for rows in converted:
                counters.update(_count(rows))
                rejected.write(reject_table(unit.shard.name, rows.rejects))
                if rows.samples.num_rows:
                    samples.write(rows.samples)
                    sides = [side for side in (rows.image_MD, rows.text_MD) if side is not None]
                    embeddings.write(pa.Table.from_arrays(list(map(vector_column, sides)), schema=vectors))
                    uids.append(rows.samples["uid"])
            books = {name: counters[name] for name in (EMBEDDED, REJECTED)}
            artifacts.balance(f"embed {unit.key}", counters[READ], books)
        chunks = [chunk for column in uids for chunk in column.chunks]
        distinct = pc.count_distinct(pa.chunked_array(chunks, pa.string())).as_py()
        counters[UID_DUPLICATE] = counters[EMBEDDED] - distinct
        if self.params.columns.uid is None:
            counters[UID_FROM_HASH] = counters[EMBEDDED]
        writers = (samples, embeddings, rejected)
        return counters, [writer.record for writer in writers if writer.record is not None]


def _read_until_widths_known(
    converted: Iterator[ConvertedBatch], url: str
) -> tuple[list[ConvertedBatch], dict[str, int]]:
    """Return the first batches up to one that shows the width of the embeddings, and the widths.

    Lists of variable length have no width until one is found; all rows before it are rejects.

    Raises:
        UserError: no row has an embedding.
    """
    batches: list[ConvertedBatch] = []
    for rows in converted:
        batches.append(rows)
        widths = _widths(rows)
        if all(widths.values()):
            return batches, widths
    raise UserError(f"{url}: no row has an embedding; remove this file from the input")


def _widths(rows: ConvertedBatch) -> dict[str, int]:
    """Return the dimensions of each side that exists."""
    sides = (("image_emb", rows.image_MD), ("text_emb", rows.text_MD))
    return {name: side.shape[1] for name, side in sides if side is not None}


def _count(rows: ConvertedBatch) -> Counter[str]:
    counts = Counter({READ: rows.read, EMBEDDED: rows.samples.num_rows, REJECTED: len(rows.rejects)})
    counts.update(f"{REJECTED}.{reject.reason}" for reject in rows.rejects)
    return counts


def check_dimensions(receipts: Sequence[Receipt]) -> None:
    """Check that all embeddings have the same width, since other widths come from other models.

    Raises:
        UserError: two parts, or the two sides of one part, differ.
    """
    dimensions = [(receipt, receipt.facts["dimensions"]) for receipt in receipts if receipt.counters[READ]]
    first, expected = dimensions[0]
    if len(set(expected.values())) > 1:
        raise UserError(
            f"input: embeddings of {first.key} have {_format_widths(expected)} dimensions; "
            "expected one model's (columns.text_emb: null excludes that side)"
        )
    for receipt, widths in dimensions[1:]:
        if widths != expected:
            raise UserError(
                f"input: embeddings of {receipt.key} have {_format_widths(widths)} dimensions, "
                f"those of {first.key} {_format_widths(expected)}; expected one model's"
            )


def _format_widths(widths: dict[str, int]) -> str:
    return ", ".join(f"{name} {width}" for name, width in sorted(widths.items()))
