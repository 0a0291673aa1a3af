"""Write one shard's part while it is embedded: rows as they come, a receipt once the sample counts balance.

Sample counts balance when samples read = embedded + rejected + filtered.
Memory holds one row group of each table, and about 100 bytes per uid.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from d2prune.execution import metrics
from d2prune.inputs import rejects
from d2prune.inputs.rejects import Reject
from d2prune.parts.files import REJECTS, SAMPLES
from d2prune.store import artifacts, schemas, table_writer
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.columns import vector_column
from d2prune.store.table_writer import TableWriter

if TYPE_CHECKING:
    from d2prune.embed.decode.decoder import DecodedSample
    from d2prune.embed.model.encoder import Embeddings

EMBEDDINGS = schemas.embeddings_file()

READ = "read"
EMBEDDED = "embedded"
REJECTED = "rejected"
FILTERED = "filtered"
"""Counters that must balance; `rejected.<reason>` and `filtered.<reason>` count each reason."""
UID_DUPLICATE = "uid-duplicate"
"""Counter: samples with the uid of an earlier sample of the same shard."""
END_MARK_MISSING = "tar-without-end-mark"
"""Counter: tars that do not end in zero blocks. A tar truncated between two samples has no other symptom."""

_REJECT_BATCH_ROWS = 1_000


def count_rejects(rejected: Iterable[Reject], counters: Counter[str]) -> None:
    """Add samples to the counters `rejected` or `filtered`, and to those of their reasons."""
    for reject in rejected:
        counter = FILTERED if reject.reason in rejects.FILTER_REASONS else REJECTED
        counters[counter] += 1
        counters[f"{counter}.{reject.reason}"] += 1


def reject_table(shard: str, rejected: Sequence[Reject]) -> pa.Table:
    """Return rows of the rejects table."""
    columns = (
        [shard] * len(rejected),
        [reject.key for reject in rejected],
        [reject.reason for reject in rejected],
        [reject.detail for reject in rejected],
    )
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=schemas.REJECTS)


class PartWriter:
    """Writes one shard's rows; see `open_part`.

    Attributes:
        counters: counts so far.
        records: of the files; valid once `open_part` has ended.
    """

    records: tuple[FileRecord, ...] = ()

    def __init__(
        self,
        shard: str,
        fields: Sequence[str],
        models: Sequence[str],
        samples: TableWriter,
        embeddings: Sequence[TableWriter],
        rejected: TableWriter,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._shard, self._samples, self._embeddings, self._rejects = shard, samples, embeddings, rejected
        self._fields, self._scores = fields, [schemas.score_column(model) for model in models]
        self._buffered_rejects: list[Reject] = []
        self._uids: set[bytes] = set()

    def add_reject(self, reject: Reject) -> None:
        """Count and write a sample that is not embedded."""
        metrics.add(metrics.SAMPLES_READ)
        metrics.add(metrics.SAMPLES_REJECTED, reason=reject.reason)
        count_rejects([reject], self.counters)
        self._buffered_rejects.append(reject)
        if len(self._buffered_rejects) >= _REJECT_BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rejects."""
        self._rejects.write(reject_table(self._shard, self._buffered_rejects))
        self._buffered_rejects = []

    def add_batch(self, batch: "Sequence[DecodedSample]", embedded: "Sequence[Embeddings]") -> None:
        """Count and write a batch of samples.

        Args:
            batch: the samples.
            embedded: their embeddings by each model.
        """
        metrics.add(metrics.SAMPLES_READ, len(batch))
        metrics.add(metrics.SAMPLES_EMBEDDED, len(batch))
        self.counters[EMBEDDED] += len(batch)
        for item in batch:
            self.counters.update(item.notes)
            uid = bytes.fromhex(item.uid)
            self.counters[UID_DUPLICATE] += uid in self._uids
            self._uids.add(uid)
        columns = {
            "shard": [self._shard] * len(batch),
            "key": [item.key for item in batch],
            "uid": [item.uid for item in batch],
            "clip_score": embedded[0].clip_score_N,
            "caption": [item.caption for item in batch],
            "width": np.array([item.width for item in batch], np.int32),
            "height": np.array([item.height for item in batch], np.int32),
            "offset": np.array([item.offset for item in batch], np.int64),
            "size": np.array([item.size for item in batch], np.int64),
            "checksum": [item.checksum for item in batch],
            "image_sha256": [item.image_sha256 for item in batch],
        }
        columns |= {name: [item.fields[i] for item in batch] for i, name in enumerate(self._fields)}
        columns |= {
            name: by_model.clip_score_N for name, by_model in zip(self._scores, embedded, strict=False)
        }
        self._samples.write(pa.table(columns, schema=self._samples.schema))
        for writer, by_model in zip(self._embeddings, embedded, strict=True):
            vectors = [vector_column(by_model.image_ND), vector_column(by_model.text_ND)]
            writer.write(pa.Table.from_arrays(vectors, schema=writer.schema))


@contextlib.contextmanager
def open_part(
    folder: str,
    key: str,
    shard: str,
    fields: Sequence[tuple[str, str]],
    dimensions: Sequence[int],
    models: Sequence[str] = (),
) -> Iterator[PartWriter]:
    """Open the part of a shard. Its files appear only if the block ends without an error.

    Args:
        folder: the stage's folder.
        key: the unit's key.
        shard: its name.
        fields: see `schemas.samples`.
        dimensions: D of each model's embeddings.
        models: their names, where there are several.

    Raises:
        BooksError: at the end of the block, if the sample counts do not balance.
    """
    files = [EMBEDDINGS, *(schemas.embeddings_file(model) for model in models[1:])]
    with contextlib.ExitStack() as stack:

        def open_table(name: str, schema: pa.Schema) -> TableWriter:
            return stack.enter_context(table_writer.open_table(folder, key, name, schema))

        samples = open_table(SAMPLES, schemas.samples(fields, models))
        embeddings = [
            open_table(name, schemas.embeddings(width)) for name, width in zip(files, dimensions, strict=True)
        ]
        rejected = open_table(REJECTS, schemas.REJECTS)
        part = PartWriter(shard, [name for name, _ in fields], models, samples, embeddings, rejected)
        yield part
        part.flush()
        books = {name: part.counters[name] for name in (EMBEDDED, REJECTED, FILTERED)}
        artifacts.balance(f"embed {shard}", part.counters[READ], books)
    part.records = tuple(
        writer.record for writer in (samples, *embeddings, rejected) if writer.record is not None
    )


def commit_part(folder: str, key: str, part: PartWriter, facts: dict[str, object]) -> Receipt:
    """Write the receipt of a part whose block has ended."""
    books = {name: part.counters[name] for name in (READ, EMBEDDED, REJECTED)}
    others = {name: count for name, count in sorted(part.counters.items()) if count}
    return artifacts.commit_receipt(folder, key, part.records, {**books, **others}, facts)
