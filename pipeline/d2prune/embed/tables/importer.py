"""The worker of the embed stage for tables: imports embeddings that already exist, without a model.

Reads table files and arrays (`inputs.tables.reader`) and writes what `embed.worker` writes:
`samples.parquet`, `embeddings.parquet` and `rejects.parquet`, rows in table order. A sample's
`offset` is its row in the table and its `size` is 0, since it has no bytes to copy.
Invariant: rows read = embedded + rejected + filtered. Memory holds a row group, and the part's uids.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from d2prune import store
from d2prune.embed.decode.fields import FieldKind
from d2prune.embed.filters import Filters
from d2prune.embed.part import (
    EMBEDDED,
    EMBEDDINGS,
    FILTERED,
    READ,
    REJECTED,
    UID_DUPLICATE,
    count_rejects,
    reject_table,
)
from d2prune.embed.tables.convert import ConvertedBatch, convert_batch
from d2prune.embed.word_file import read_words
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

TEXT_CUT = "text-cut"
"""Counter: texts longer than `sample_id.MAX_TEXT`, which were cut."""


@dataclass(frozen=True)
class ImportParams:
    """Everything that determines the content of a part; hashed into unit keys and fingerprints.

    Attributes:
        columns: the names in the pool's files.
        dimension: width of every embedding.
        fields: columns to carry along, (name, kind).
        filters: what captions and sizes of images must have.
    """

    columns: Columns
    dimension: int
    fields: tuple[tuple[str, FieldKind], ...] = ()
    filters: Filters = field(default_factory=Filters)


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
        words: URL of the word list of the filters.
    """

    folder: str
    params: ImportParams
    words: str | None = None

    def __call__(self, unit: ImportUnit) -> Receipt:
        """Read, check and commit one part.

        Raises:
            UserError: a file is missing, changed or damaged, a column has the wrong type, or there is not
                enough memory for a batch of its rows.
            InfrastructureError: storage failed.
            BooksError: a row is neither embedded nor rejected nor filtered.
        """
        shard, params = unit.shard, self.params
        url = store.redact(shard.url)
        batches = read_part(shard, params.columns, params.dimension, [name for name, _ in params.fields])
        converted = (
            convert_batch(
                batch, shard.name, url, params.columns, params.fields, params.filters, self._listed_words
            )
            for batch in batches
        )
        try:
            with contextlib.closing(converted):
                counters, records = self._write_part(unit, converted)
        except MemoryError as error:
            raise UserError(f"{url}: not enough memory to import it; expected a few hundred MiB") from error
        others = {name: count for name, count in sorted(counters.items()) if count}
        counts = {name: counters[name] for name in (READ, EMBEDDED, REJECTED)} | others
        sources = [list(file) for file in shard.file_versions]
        facts = {"dimension": params.dimension, "sources": sources}
        return artifacts.commit_receipt(self.folder, unit.key, records, counts, facts)

    @cached_property
    def _listed_words(self) -> frozenset[str]:
        return read_words(self.words, self.params.filters.words)

    def _write_part(
        self, unit: ImportUnit, converted: Iterable[ConvertedBatch]
    ) -> tuple[Counter[str], list[FileRecord]]:
        """Write the tables of a part; return its counters and files."""
        counters: Counter[str] = Counter()
        uids: list[pa.ChunkedArray] = []
        columns, width = self.params.columns, pa.binary(2 * self.params.dimension)
        sides = (("image_emb", columns.image_emb), ("text_emb", columns.text_emb))
        vectors = pa.schema([(side, width) for side, name in sides if name is not None])
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
                    halves = [half_MD for half_MD in (rows.image_MD, rows.text_MD) if half_MD is not None]
                    embeddings.write(pa.Table.from_arrays(list(map(vector_column, halves)), schema=vectors))
                    uids.append(rows.samples["uid"])
            books = {name: counters[name] for name in (EMBEDDED, REJECTED, FILTERED)}
            artifacts.balance(f"embed {unit.key}", counters[READ], books)
        chunks = [chunk for column in uids for chunk in column.chunks]
        distinct = pc.count_distinct(pa.chunked_array(chunks, pa.string())).as_py()
        counters[UID_DUPLICATE] = counters[EMBEDDED] - distinct
        if columns.uid is None:
            counters[UID_FROM_HASH] = counters[EMBEDDED]
        writers = (samples, embeddings, rejected)
        return counters, [writer.record for writer in writers if writer.record is not None]


def _count(rows: ConvertedBatch) -> Counter[str]:
    counts = Counter({READ: rows.read, EMBEDDED: rows.samples.num_rows})
    count_rejects(rows.rejects, counts)
    counts[TEXT_CUT] = rows.n_cut
    return counts
