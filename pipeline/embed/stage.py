"""The embed stage: one input shard -> one part of samples and one of rejects, in tar order.

Reads tars (`inputs.pool.Shard`), writes `samples.parquet` (`schemas.samples`), `embeddings.parquet`
(`schemas.embeddings`) and `rejects.parquet` (`schemas.REJECTS`) per shard. Invariants: samples read = embedded +
rejected; batches never cross shards, so the bits do not depend on which worker took which shard; memory holds the
samples decoded ahead and the rows of one shard.
"""

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pyarrow as pa
from PIL import Image

from pipeline import artifacts, schemas, storage
from pipeline.artifacts import Receipt
from pipeline.columns import vector_column
from pipeline.embed import models
from pipeline.embed.clip import ClipEncoder
from pipeline.embed.decode import WANTED_EXTENSIONS, FieldKind, Limits, Prepared, Rejected, prepare
from pipeline.errors import InfrastructureError, UserError
from pipeline.inputs.pool import Shard
from pipeline.inputs.tar import DEFAULT_MAX_MEMBER_BYTES, Fault, Sample, TarReader

SAMPLES = "samples.parquet"
EMBEDDINGS = "embeddings.parquet"
REJECTS = "rejects.parquet"

READ = "read"
EMBEDDED = "embedded"
REJECTED = "rejected"
"""Counters of the books; `rejected.<reason>` counts each reason."""
UID_DUPLICATE = "uid-duplicate"
"""Counter: samples whose uid an earlier sample of the same shard has."""
END_MARK_MISSING = "tar-without-end-mark"
"""Counter: tars that do not end in zero blocks; a tar cut between two samples shows in nothing else."""

# Bytes of samples that may wait for the encoder, beside two batches of them.
_AHEAD_BYTES = 256 << 20


@dataclass(frozen=True)
class EmbedParams:
    """What decides the content of a part.

    Attributes:
        model: from `models.identity`; paths do not count.
        pretrained: likewise.
        precision: fp32, bf16, fp16, or auto (by the device of the worker; its receipt tells which).
        batch_size: samples per forward pass: a matrix product of another shape may round differently.
        max_pixels: see `decode.Limits`.
        max_member_bytes: images, captions and json above are not loaded.
        fields: json values to carry along as columns, (name, kind).
    """

    model: str
    pretrained: str | None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int = 64
    max_pixels: int = 100_000_000
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    fields: tuple[tuple[str, FieldKind], ...] = ()


@dataclass(frozen=True)
class EmbedUnit:
    """One shard to embed; `key` changes with the shard's content and with the params."""

    key: str
    shard: Shard


def plan(shards: Sequence[Shard], params: EmbedParams) -> list[EmbedUnit]:
    """One unit per shard, in the pool's order."""
    return [EmbedUnit(artifacts.unit_key(shard.name, params, shard.size, shard.version), shard) for shard in shards]


class EmbedWorker:
    """Embeds one shard per call; loads the model once. Build it where it runs."""

    def __init__(
        self,
        folder: str,
        params: EmbedParams,
        model: str,
        pretrained: str | None,
        device: str = "auto",
        decode_threads: int = 2,
    ) -> None:
        """Loads the model.

        Args:
            folder: the stage's folder, `work_dir/embed`.
            params: what the units were planned with.
            model: as the user names it, after `models.absolute`.
            pretrained: likewise.
            device: `auto` takes a GPU if there is one.
            decode_threads: threads that decode ahead of the encoder; does not change the result.

        Raises:
            UserError: the model here is not the one the units were planned with.
        """
        here = models.identity(model, pretrained)
        if here != (params.model, params.pretrained):
            raise UserError(f"embed.model: this machine has {here}, planned was {(params.model, params.pretrained)}")
        self._folder = folder
        self._params = params
        self._decode_threads = decode_threads
        self._encoder = ClipEncoder(models.resolve(model, pretrained), params.precision, device)
        _quiet_pillow(params.max_pixels)

    def __call__(self, unit: EmbedUnit) -> Receipt:
        """Reads, embeds and commits one shard.

        Raises:
            UserError: the shard is gone.
            InfrastructureError: storage failed, or the shard changed under the run.
            BooksError: a sample is neither embedded nor rejected.
        """
        shard, params = unit.shard, self._params
        part = _Part(shard.name, schemas.samples(params.fields), schemas.embeddings(self._encoder.dimension))
        limits = Limits(params.max_pixels, self._encoder.image_size)
        work = partial(_attend, transform=self._encoder.transform, limits=limits, fields=params.fields)
        batch: list[Prepared] = []
        try:
            with (
                storage.open_read(shard.url) as stream,
                ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool,
            ):
                reader = TarReader(stream, WANTED_EXTENSIONS, params.max_member_bytes)
                for item in _in_order(work, part.counted(reader), pool, 2 * params.batch_size):
                    if isinstance(item, Prepared):
                        batch.append(item)
                        if len(batch) == params.batch_size:
                            self._encode(batch, part)
                            batch = []
                    else:
                        part.reject(*item)
        except FileNotFoundError as error:
            raise UserError(f"{error}; it was there when this run began") from error
        if batch:
            self._encode(batch, part)
        if reader.bytes_read != shard.size:
            raise InfrastructureError(
                f"{storage.redact(shard.url)}: {reader.bytes_read} bytes came, {shard.size} were listed"
            )
        part.counters[END_MARK_MISSING] += not reader.end_mark
        return part.commit(self._folder, unit.key, self._encoder.precision)

    def _encode(self, batch: Sequence[Prepared], part: "_Part") -> None:
        found = self._encoder.encode([item.pixels for item in batch], [item.caption for item in batch])
        part.embed(batch, found.image_ND, found.text_ND, found.clip_score_N)


def check_reject_rate(counters: Counter[str] | dict[str, int], limit: float) -> None:
    """Fails a run whose pool is mostly unreadable.

    Raises:
        UserError: rejected / read is above `limit`; the reasons are named, most frequent first.
    """
    read, rejected = counters.get(READ, 0), counters.get(REJECTED, 0)
    if read and rejected / read > limit:
        prefix = f"{REJECTED}."
        by_reason = sorted(((n, name) for name, n in counters.items() if name.startswith(prefix)), reverse=True)
        reasons = ", ".join(f"{n} {name.removeprefix(prefix)}" for n, name in by_reason)
        raise UserError(
            f"{rejected} of {read} samples were rejected ({rejected / read:.1%}; {reasons}), "
            f"embed.max_reject_rate is {limit:.1%}"
        )


@dataclass
class _Part:
    """Rows and books of one shard while it is read."""

    shard: str
    samples: pa.Schema
    embeddings: pa.Schema
    counters: Counter[str] = field(default_factory=Counter)
    sample_tables: list[pa.Table] = field(default_factory=list)
    embedding_tables: list[pa.Table] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)

    def counted(self, events: Iterable[Sample | Fault]) -> Iterator[Sample | Fault]:
        for event in events:
            self.counters[READ] += 1
            yield event

    def reject(self, key: str, reason: str, detail: str) -> None:
        self.counters[REJECTED] += 1
        self.counters[f"{REJECTED}.{reason}"] += 1
        self.rejects.append({"shard": self.shard, "key": key, "reason": reason, "detail": detail})

    def embed(self, batch: Sequence[Prepared], image_ND: Any, text_ND: Any, clip_score_N: Any) -> None:
        self.counters[EMBEDDED] += len(batch)
        for item in batch:
            self.counters.update(item.notes)
            self.counters[UID_DUPLICATE] += item.uid in self.uids
            self.uids.add(item.uid)
        columns = {
            "shard": [self.shard] * len(batch),
            "key": [item.key for item in batch],
            "uid": [item.uid for item in batch],
            "clip_score": clip_score_N,
            "caption": [item.caption for item in batch],
            "width": [item.width for item in batch],
            "height": [item.height for item in batch],
            "offset": [item.offset for item in batch],
            "size": [item.size for item in batch],
        }
        carried = self.samples.names[len(columns) :]
        columns |= {name: [item.fields[i] for item in batch] for i, name in enumerate(carried)}
        self.sample_tables.append(pa.table(columns, schema=self.samples))
        vectors = [vector_column(image_ND), vector_column(text_ND)]
        self.embedding_tables.append(pa.Table.from_arrays(vectors, schema=self.embeddings))

    def commit(self, folder: str, key: str, precision: str) -> Receipt:
        books = {name: self.counters[name] for name in (EMBEDDED, REJECTED)}
        artifacts.balance(f"embed {self.shard}", self.counters[READ], books)
        files: dict[str, pa.Table | bytes] = {
            SAMPLES: _whole(self.sample_tables, self.samples),
            EMBEDDINGS: _whole(self.embedding_tables, self.embeddings),
            REJECTS: pa.Table.from_pylist(self.rejects, schema=schemas.REJECTS),
        }
        others = {name: count for name, count in sorted(self.counters.items()) if count}
        counters = {READ: self.counters[READ], **books, **others}
        facts = {"dimension": self.embeddings.field("image_emb").type.byte_width // 2, "precision": precision}
        return artifacts.commit_unit(folder, key, files, counters, facts)


def _whole(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


_Reject = tuple[str, str, str]


def _attend(
    event: Sample | Fault,
    transform: Callable[[Image.Image], Any],
    limits: Limits,
    fields: Sequence[tuple[str, FieldKind]],
) -> Prepared | _Reject:
    """What becomes of one thing read from the tar: a sample ready to encode, or (key, reason, detail)."""
    if isinstance(event, Fault):
        return event.key, event.reason, event.detail
    found = prepare(event, transform, limits, fields)
    return (event.key, found.reason, found.detail) if isinstance(found, Rejected) else found


def _in_order(
    work: Callable[[Sample | Fault], Prepared | _Reject],
    events: Iterable[Sample | Fault],
    pool: ThreadPoolExecutor,
    ahead: int,
) -> Iterator[Prepared | _Reject]:
    """Maps over events in a pool, at most `ahead` of them and `_AHEAD_BYTES` at a time; results keep the order."""
    waiting: deque[tuple[Future[Prepared | _Reject], int]] = deque()
    held = 0
    for event in events:
        size = sum(map(len, event.members.values())) if isinstance(event, Sample) else 0
        while waiting and (len(waiting) >= ahead or held + size > _AHEAD_BYTES):
            future, freed = waiting.popleft()
            held -= freed
            yield future.result()
        waiting.append((pool.submit(work, event), size))
        held += size
    yield from (future.result() for future, _ in waiting)


def _quiet_pillow(max_pixels: int) -> None:
    """Leaves size limits to `decode.Limits`, and keeps Pillow's remarks on bad EXIF out of the log."""
    if Image.MAX_IMAGE_PIXELS is not None:
        # Never lowered: the limit is the process's, and others in it may want more than this pool's.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    warnings.filterwarnings("ignore", module="PIL")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
