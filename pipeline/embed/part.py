"""Rows and books of one shard while it is embedded: written as they come, committed when the books balance.

Memory holds one row group of each table and 16 bytes (as Python keeps them, about 100) per uid.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline import artifacts, schemas
from pipeline.artifacts import FileRecord, Receipt, TableWriter
from pipeline.columns import vector_column
from pipeline.embed.clip import Embeddings
from pipeline.embed.decode import Prepared
from pipeline.embed.feed import Reject
from pipeline.execution import metrics
from pipeline.inputs import reasons

SAMPLES = "samples.parquet"
EMBEDDINGS = "embeddings.parquet"
REJECTS = "rejects.parquet"

READ = "read"
EMBEDDED = "embedded"
REJECTED = "rejected"
FILTERED = "filtered"
"""Counters of the books, `filtered` where there is any; `rejected.<reason>` and `filtered.<reason>` count each
reason."""
UID_DUPLICATE = "uid-duplicate"
"""Counter: samples whose uid an earlier sample of the same shard has."""
END_MARK_MISSING = "tar-without-end-mark"
"""Counter: tars that do not end in zero blocks; a tar cut between two samples shows in nothing else."""

_REJECTS_AT_ONCE = 1_000


class Part:
    """One shard's rows. Use `open_part`.

    Attributes:
        counters: what was counted so far.
        records: of the files; valid once `open_part` has ended.
    """

    records: tuple[FileRecord, ...] = ()

    def __init__(self, shard: str, samples: TableWriter, embeddings: TableWriter, rejects: TableWriter) -> None:
        self.counters: Counter[str] = Counter()
        self._shard, self._samples, self._embeddings, self._rejects = shard, samples, embeddings, rejects
        self._columns = samples.schema.names
        self._waiting: list[dict[str, str]] = []
        self._uids: set[bytes] = set()

    def reject(self, found: Reject) -> None:
        """Book a sample that is not embedded."""
        metrics.add(metrics.SAMPLES_READ)
        metrics.add(metrics.SAMPLES_REJECTED, reason=found.reason)
        account = FILTERED if found.reason in reasons.FILTERS else REJECTED
        self.counters[account] += 1
        self.counters[f"{account}.{found.reason}"] += 1
        self._waiting.append({"shard": self._shard, **found._asdict()})
        if len(self._waiting) >= _REJECTS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Hand the rejects on that wait to be written."""
        self._rejects.write(pa.Table.from_pylist(self._waiting, schema=schemas.REJECTS))
        self._waiting = []

    def embed(self, batch: Sequence[Prepared], found: Embeddings) -> None:
        """Book a batch of samples with their embeddings."""
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
            "clip_score": found.clip_score_N,
            "caption": [item.caption for item in batch],
            "width": np.array([item.width for item in batch], np.int32),
            "height": np.array([item.height for item in batch], np.int32),
            "offset": np.array([item.offset for item in batch], np.int64),
            "size": np.array([item.size for item in batch], np.int64),
        }
        carried = self._columns[len(columns) :]
        columns |= {name: [item.fields[i] for item in batch] for i, name in enumerate(carried)}
        self._samples.write(pa.table(columns, schema=self._samples.schema))
        vectors = [vector_column(found.image_ND), vector_column(found.text_ND)]
        self._embeddings.write(pa.Table.from_arrays(vectors, schema=self._embeddings.schema))


@contextlib.contextmanager
def open_part(folder: str, key: str, shard: str, fields: Sequence[tuple[str, str]], dimension: int) -> Iterator[Part]:
    """The part of a shard; its files appear when the block ends without an error, and nothing stays otherwise.

    Args:
        folder: the stage's folder.
        key: the unit's key.
        shard: its name.
        fields: see `schemas.samples`.
        dimension: D of the embeddings.
    """
    with (
        artifacts.table_writer(folder, key, SAMPLES, schemas.samples(fields)) as samples,
        artifacts.table_writer(folder, key, EMBEDDINGS, schemas.embeddings(dimension)) as embeddings,
        artifacts.table_writer(folder, key, REJECTS, schemas.REJECTS) as rejects,
    ):
        part = Part(shard, samples, embeddings, rejects)
        yield part
        part.flush()
        books = {name: part.counters[name] for name in (EMBEDDED, REJECTED, FILTERED)}
        artifacts.balance(f"embed {shard}", part.counters[READ], books)
    part.records = tuple(writer.record for writer in (samples, embeddings, rejects) if writer.record is not None)


def commit(folder: str, key: str, part: Part, facts: dict[str, object]) -> Receipt:
    """Write the receipt of a part whose block has ended."""
    books = {name: part.counters[name] for name in (READ, EMBEDDED, REJECTED)}
    others = {name: count for name, count in sorted(part.counters.items()) if count}
    return artifacts.commit_receipt(folder, key, part.records, {**books, **others}, facts)
