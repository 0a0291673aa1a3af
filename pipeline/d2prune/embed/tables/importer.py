"""The worker of the embed stage for tables: imports embeddings that already exist, without a model.

Reads table files and arrays (`inputs.tables.reader`) and writes `samples.parquet` and
`rejects.parquet` as `embed.worker` does, rows in table order. A sample's `offset` is its row in the
table and its `size` is 0, since it has no bytes to copy. Embeddings stay where they are if they can be
read there: the receipt holds their place and their checksum (`parts.in_place`). Others are copied to
`embeddings.parquet`.
Invariant: rows read = embedded + rejected + filtered. Memory holds a row group, and the part's uids.
"""

import contextlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
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
from d2prune.inputs.tables.reader import OpenPart, TableBatch, open_part
from d2prune.parts.files import REJECTS, SAMPLES
from d2prune.parts.in_place import ArrayRows, InPlace
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.columns import vector_column
from d2prune.store.table_writer import open_table
from d2prune.store.urls import make_relative

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
        version: of what a part holds; 2: embeddings that can be read in the input are not copied.
    """

    columns: Columns
    dimension: int
    fields: tuple[tuple[str, FieldKind], ...] = ()
    filters: Filters = field(default_factory=Filters)
    version: int = 2

    @property
    def sides(self) -> dict[str, str]:
        """Column of an embed artifact -> name of the embeddings in the pool, of those that there are."""
        names = {"image_emb": self.columns.image_emb, "text_emb": self.columns.text_emb}
        return {side: name for side, name in names.items() if name is not None}


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
        sources = [list(file) for file in shard.file_versions]
        facts: dict[str, Any] = {"dimension": params.dimension, "sources": sources}
        opened = open_part(shard, params.columns, params.dimension, [name for name, _ in params.fields])
        try:
            with opened as part:
                hashed = _HashedBatches(part.batches) if part.in_place else None
                batches = hashed or part.batches
                with contextlib.closing(self._convert(batches, shard, url)) as converted:
                    counters, records = self._write_part(unit, converted, copies=hashed is None)
                if hashed is not None:
                    facts |= _describe_place(shard, part, params, hashed.digests).fact
        except MemoryError as error:
            raise UserError(f"{url}: not enough memory to import it; expected a few hundred MiB") from error
        others = {name: count for name, count in sorted(counters.items()) if count}
        counts = {name: counters[name] for name in (READ, EMBEDDED, REJECTED)} | others
        return artifacts.commit_receipt(self.folder, unit.key, records, counts, facts)

    def _convert(
        self, batches: Iterable[TableBatch], shard: TableShard, url: str
    ) -> Generator[ConvertedBatch, None, None]:
        params = self.params
        for batch in batches:
            yield convert_batch(
                batch, shard.name, url, params.columns, params.fields, params.filters, self._listed_words
            )

    @cached_property
    def _listed_words(self) -> frozenset[str]:
        return read_words(self.words, self.params.filters.words)

    def _write_part(
        self, unit: ImportUnit, converted: Iterable[ConvertedBatch], copies: bool
    ) -> tuple[Counter[str], list[FileRecord]]:
        """Write the tables of a part, that of the embeddings if they are copied.

        Returns:
            Its counters and files.
        """
        counters: Counter[str] = Counter()
        uids: list[pa.ChunkedArray] = []
        vectors = pa.schema([(side, pa.binary(2 * self.params.dimension)) for side in self.params.sides])
        schemas_of = {SAMPLES: schemas.samples(self.params.fields)}
        schemas_of |= {EMBEDDINGS: vectors} if copies else {}
        schemas_of |= {REJECTS: schemas.REJECTS}
        with contextlib.ExitStack() as stack:
            writers = {
                name: stack.enter_context(open_table(self.folder, unit.key, name, schema))
                for name, schema in schemas_of.items()
            }
            for rows in converted:
                counters.update(_count(rows))
                writers[REJECTS].write(reject_table(unit.shard.name, rows.rejects))
                if rows.samples.num_rows:
                    writers[SAMPLES].write(rows.samples)
                    halves = [half_MD for half_MD in (rows.image_MD, rows.text_MD) if half_MD is not None]
                    if copies:
                        table = pa.Table.from_arrays(list(map(vector_column, halves)), schema=vectors)
                        writers[EMBEDDINGS].write(table)
                    uids.append(rows.samples["uid"])
            books = {name: counters[name] for name in (EMBEDDED, REJECTED, FILTERED)}
            artifacts.balance(f"embed {unit.key}", counters[READ], books)
        chunks = [chunk for column in uids for chunk in column.chunks]
        distinct = pc.count_distinct(pa.chunked_array(chunks, pa.string())).as_py()
        counters[UID_DUPLICATE] = counters[EMBEDDED] - distinct
        if self.params.columns.uid is None:
            counters[UID_FROM_HASH] = counters[EMBEDDED]
        return counters, [writer.record for writer in writers.values() if writer.record is not None]


class _HashedBatches:
    """Batches that pass by, and the checksums of their embeddings as they are stored.

    Attributes:
        digests: of image and text embeddings, over all batches so far.
    """

    def __init__(self, batches: Iterator[TableBatch]) -> None:
        self._batches = batches
        self.digests = {side: store.new_checksum() for side in ("image_emb", "text_emb")}

    def __iter__(self) -> Iterator[TableBatch]:
        for batch in self._batches:
            for digest, rows_ND in zip(self.digests.values(), (batch.image_ND, batch.text_ND), strict=True):
                if rows_ND is not None:
                    digest.update(rows_ND.data)
            yield batch


def _describe_place(
    shard: TableShard, part: OpenPart, params: ImportParams, digests: Mapping[str, Any]
) -> InPlace:
    """Return where the embeddings of a part are that was read completely."""
    arrays = {}
    for side, name in params.sides.items():
        matrix = part.in_place[name]
        row_bytes = params.dimension * np.dtype(matrix.dtype).itemsize
        arrays[side] = ArrayRows(
            make_relative(matrix.file.url, shard.url),
            matrix.file.size,
            matrix.file.version,
            (matrix.offset or 0) + part.rows.start * row_bytes,
            matrix.dtype,
            digests[side].hexdigest(),
        )
    return InPlace(shard.name, part.rows.start, len(part.rows), params.dimension, arrays)


def _count(rows: ConvertedBatch) -> Counter[str]:
    counts = Counter({READ: rows.read, EMBEDDED: rows.samples.num_rows})
    count_rejects(rows.rejects, counts)
    counts[TEXT_CUT] = rows.n_cut
    return counts
