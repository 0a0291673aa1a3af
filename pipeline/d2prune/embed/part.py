"""Rows and books of one shard while it is embedded: written as they come, committed when the books balance.

Memory holds one row group of each table and 16 bytes (as Python keeps them, about 100) per uid.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from d2prune.embed.decode.decoder import Prepared
from d2prune.embed.feed import Reject
from d2prune.embed.model.encoder import Embeddings
from d2prune.execution import metrics
from d2prune.inputs import reasons
from d2prune.parts.files import REJECTS, SAMPLES
from d2prune.store import artifacts, schemas, table_writer
from d2prune.store.artifacts import FileRecord, Receipt
from d2prune.store.columns import vector_column
from d2prune.store.table_writer import TableWriter

EMBEDDINGS = schemas.embeddings_file()

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

    def __init__(
        self,
        shard: str,
        fields: Sequence[str],
        models: Sequence[str],
        samples: TableWriter,
        embeddings: Sequence[TableWriter],
        rejects: TableWriter,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._shard, self._samples, self._embeddings, self._rejects = shard, samples, embeddings, rejects
        self._fields, self._scores = fields, [schemas.score_column(model) for model in models]
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

    def embed(self, batch: Sequence[Prepared], found: Sequence[Embeddings]) -> None:
        """Book a batch of samples with their embeddings by each model."""
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
            "clip_score": found[0].clip_score_N,
            "caption": [item.caption for item in batch],
            "width": np.array([item.width for item in batch], np.int32),
            "height": np.array([item.height for item in batch], np.int32),
            "offset": np.array([item.offset for item in batch], np.int64),
            "size": np.array([item.size for item in batch], np.int64),
        }
        columns |= {name: [item.fields[i] for item in batch] for i, name in enumerate(self._fields)}
        columns |= {name: by_model.clip_score_N for name, by_model in zip(self._scores, found, strict=False)}
        self._samples.write(pa.table(columns, schema=self._samples.schema))
        for writer, by_model in zip(self._embeddings, found, strict=True):
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
) -> Iterator[Part]:
    """The part of a shard; its files appear when the block ends without an error, and nothing stays otherwise.

    Args:
        folder: the stage's folder.
        key: the unit's key.
        shard: its name.
        fields: see `schemas.samples`.
        dimensions: D of each model's embeddings.
        models: their names, where there are several.
    """
    files = [EMBEDDINGS, *(schemas.embeddings_file(model) for model in models[1:])]
    with contextlib.ExitStack() as stack:

        def open_table(name: str, schema: pa.Schema) -> TableWriter:
            return stack.enter_context(table_writer.open_table(folder, key, name, schema))

        samples = open_table(SAMPLES, schemas.samples(fields, models))
        embeddings = [
            open_table(name, schemas.embeddings(width)) for name, width in zip(files, dimensions, strict=True)
        ]
        rejects = open_table(REJECTS, schemas.REJECTS)
        part = Part(shard, [name for name, _ in fields], models, samples, embeddings, rejects)
        yield part
        part.flush()
        books = {name: part.counters[name] for name in (EMBEDDED, REJECTED, FILTERED)}
        artifacts.balance(f"embed {shard}", part.counters[READ], books)
    part.records = tuple(
        writer.record for writer in (samples, *embeddings, rejects) if writer.record is not None
    )


def commit(folder: str, key: str, part: Part, facts: dict[str, object]) -> Receipt:
    """Write the receipt of a part whose block has ended."""
    books = {name: part.counters[name] for name in (READ, EMBEDDED, REJECTED)}
    others = {name: count for name, count in sorted(part.counters.items()) if count}
    return artifacts.commit_receipt(folder, key, part.records, {**books, **others}, facts)
