"""The worker of the embed stage for tars: a unit is one input shard.

Reads a tar (`inputs.shards.TarShard`) and writes a part: `samples.parquet` (`schemas.samples`),
`embeddings.parquet` (`schemas.embeddings`; `embeddings-NAME.parquet` for further models) and
`rejects.parquet` (`schemas.REJECTS`), each in tar order.
Invariants: samples read = embedded + rejected + filtered. A model's embeddings do not depend on the
other models. Batches never cross shards, so the bits do not depend on which worker embeds which
shard. Memory is bounded by `Feed` and `PartWriter`, whatever the size of the shard.

A worker has two shards in flight: while the model embeds one, the next is read and decoded ahead,
and the previous one is written. So the model does not wait at the border between shards.
"""

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from d2prune import store
from d2prune.embed.decode.decoder import DecodedSample, Decoder
from d2prune.embed.decode.pool import DecodePool, Lane, SampleDecoder
from d2prune.embed.decode.remote import AssistedPool
from d2prune.embed.decode.tokenizing import TokenizingDecoder
from d2prune.embed.feed import Feed, Ready
from d2prune.embed.model import batch_size, sources
from d2prune.embed.model.batch_size import BatchSizer
from d2prune.embed.model.multi_encoder import MultiEncoder, PendingBatches
from d2prune.embed.params import EmbedParams, EmbedUnit
from d2prune.embed.part import END_MARK_MISSING, READ, REJECTED, PartWriter, commit_part, open_part
from d2prune.embed.word_file import read_words
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import Helpers, metrics
from d2prune.inputs.sample_id import SAMPLE_EXTENSIONS
from d2prune.store.artifacts import Receipt

SHARDS_IN_FLIGHT = 2
"""Shards that a worker takes concurrently; the model embeds one of them."""

MAX_PROCESSES = 32
"""Decode processes and helpers of one worker: more than a GPU can consume."""

BATCH_CUT = "batch-cut"
"""Counter: batches that exceeded the device's memory and were split, which may change the last bits of
their embeddings."""

# Batches that the GPU holds and that are not written yet: one in computation, one waiting.
_BATCHES_IN_FLIGHT = 2
# Slots per decode process or helper: two tasks of eight samples.
_SLOTS_PER_PROCESS = 16


class EmbedWorker:
    """Embeds one shard per call; `SHARDS_IN_FLIGHT` threads may call it. Build it where it runs.

    Attributes:
        close: ends the decode processes; also called when the worker is collected or the program ends.
    """

    def __init__(
        self,
        folder: str,
        params: EmbedParams,
        model: str,
        pretrained: str | None,
        device: str = "auto",
        decode_processes: int = 1,
        image_timeout: float = 30.0,
        others: Sequence[tuple[str, str | None]] = (),
        helpers: Helpers | None = None,
        words: str | None = None,
    ) -> None:
        """Load the models.

        Args:
            folder: the stage's folder, `work_dir/embed`.
            params: with which the units were planned.
            model: as configured, after `sources.make_absolute`.
            pretrained: as `model`.
            device: `auto` is a GPU if there is one.
            decode_processes: processes that decode ahead of the encoder; they do not change the result.
            image_timeout: seconds of processor time that decoding one image may take.
            others: further models, as (model, pretrained).
            helpers: decode on other machines; they do not change the result.
            words: URL of the word list of the filters.

        Raises:
            UserError: a model or a word list on this machine is not the planned one, or a filter needs
                something that is not installed.
        """
        named = ((model, pretrained), *others)
        for given, planned in zip(named, ((params.model, params.pretrained), *params.others), strict=True):
            if (here := sources.identity(*given)) != planned:
                raise UserError(f"embed.model: found {here} on this machine; expected {planned}, as planned")
        # Checked here, since a decode process that cannot load a filter reports it in its own output only.
        params.filters.setup()
        listed = read_words(words, params.filters.words)
        self._folder = folder
        self._params = params
        # The configuration refuses `auto` together with `compile`.
        compiled_rows = params.batch_size if params.compile and params.batch_size != "auto" else 0
        models = [sources.resolve(*given) for given in named]
        self._models = MultiEncoder(models, params.precision, device, params.resize, compiled_rows)
        max_batch = batch_size.max_batch_size(params.batch_size, self._models.device)
        self._batch_sizer = BatchSizer(params.batch_size, max_batch)
        preprocess, *smaller = self._models.preprocesses
        plain = Decoder(
            preprocess,
            params.max_pixels,
            params.fields,
            params.filters,
            tuple(smaller),
            listed,
            self._models.whole_bytes,
        )
        decoder: SampleDecoder = plain
        if self._models.device != "cpu":
            # At a GPU's pace, tokenizing alone would saturate this process. On a CPU it is negligible
            # beside the model, and a decode process that loads the tokenizer takes 360 MB instead of 25.
            decoder = TokenizingDecoder(plain, models)
        max_helpers = max(0, MAX_PROCESSES - decode_processes) if helpers is not None else 0
        # One batch that is gathered, one that waits, and the tasks in flight.
        slots = 2 * max_batch + _SLOTS_PER_PROCESS * (decode_processes + max_helpers)
        shape = (decoder, decode_processes, self._models.n_bytes, slots, SHARDS_IN_FLIGHT, image_timeout)
        self._pool = DecodePool(*shape) if helpers is None else AssistedPool(*shape, helpers, max_helpers)
        self.close = weakref.finalize(self, self._pool.close)
        self._model_lock = threading.Lock()

    def __call__(self, unit: EmbedUnit) -> Receipt:
        """Read, embed and commit one shard.

        Raises:
            UserError: the shard no longer exists.
            InfrastructureError: storage failed, or the shard changed during the run.
            BooksError: a sample is neither embedded nor rejected.
        """
        shard, params, models = unit.shard, self._params, self._models
        with open_part(
            self._folder, unit.key, shard.name, params.fields, models.dimensions, params.names
        ) as part:
            try:
                with (
                    self._pool.lane() as lane,
                    Feed(shard.url, lane, SAMPLE_EXTENSIONS, params.max_member_bytes) as feed,
                    # Until this shard gets the models, its feed decodes ahead.
                    self._model_lock,
                ):
                    self._embed(feed, lane, part)
            except FileNotFoundError as error:
                raise UserError(f"{error}; it existed when this run began") from error
            if feed.bytes_read != shard.size:
                raise InfrastructureError(
                    f"{store.redact(shard.url)}: read {feed.bytes_read} bytes, listed with {shard.size}"
                )
            part.counters[READ] = feed.read
            part.counters[END_MARK_MISSING] += not feed.end_mark
        facts = {
            "dimension": models.dimensions[0],
            "precision": models.precision,
            "source": {"size": shard.size, "version": shard.version},
        }
        if params.names:
            facts |= {"dimensions": dict(zip(params.names, models.dimensions, strict=True))}
        return commit_part(self._folder, unit.key, part, facts)

    def _embed(self, feed: Feed, lane: Lane, part: PartWriter) -> None:
        in_flight: deque[tuple[list[DecodedSample], PendingBatches]] = deque()
        waited = 0.0
        for batch in self._form_batches(feed, part):
            metrics.add(metrics.EMBED_WAIT_SECONDS, feed.waited - waited)
            waited = feed.waited
            samples = [ready.sample for ready in batch]
            slots = [ready.slot for ready in batch]
            pixels = self._models.gather(lane.pixels, slots, samples)
            feed.release(slots)
            in_flight.append((samples, self._models.launch(pixels, samples)))
            if len(in_flight) == _BATCHES_IN_FLIGHT:
                self._write_batch(*in_flight.popleft(), part)
        while in_flight:
            self._write_batch(*in_flight.popleft(), part)

    def _form_batches(self, feed: Feed, part: PartWriter) -> Iterator[list[Ready]]:
        batch: list[Ready] = []
        for item in feed:
            if isinstance(item, Ready):
                batch.append(item)
                if len(batch) == self._batch_sizer.size:
                    yield batch
                    batch = []
            else:
                part.add_reject(item)
        if batch:
            yield batch

    def _write_batch(self, samples: list[DecodedSample], pending: PendingBatches, part: PartWriter) -> None:
        part.add_batch(samples, pending.wait())
        metrics.add(metrics.EMBED_BUSY_SECONDS, pending.seconds)
        self._batch_sizer.record(len(samples), pending.seconds, self._models.max_rows)
        part.counters[BATCH_CUT] += pending.was_split


def check_reject_rate(counters: Mapping[str, int], limit: float) -> None:
    """Fail a run whose pool is mostly unreadable.

    Raises:
        UserError: rejected / read is above `limit`; the message lists the reasons, most frequent first.
    """
    read, rejected = counters.get(READ, 0), counters.get(REJECTED, 0)
    if read and rejected / read > limit:
        prefix = f"{REJECTED}."
        by_reason = sorted(
            ((n, name) for name, n in counters.items() if name.startswith(prefix)), reverse=True
        )
        reasons = ", ".join(f"{n} {name.removeprefix(prefix)}" for n, name in by_reason)
        # `tar cf x.tar *.jpg *.txt` stores all images before all captions, which splits every sample.
        split = min(counters.get(f"{prefix}{half}-missing", 0) for half in ("image", "caption")) > read // 4
        hint = "; the members of a sample must be adjacent in the tar: create it with tar --sort=name"
        raise UserError(
            f"{rejected} of {read} samples were rejected ({rejected / read:.1%}; {reasons}), "
            f"embed.max_reject_rate is {limit:.1%}{hint if split else ''}"
        )
