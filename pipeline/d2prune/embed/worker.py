"""The embed stage: a unit is one input shard, its part holds the embedded samples and the rejects, in tar order.

Reads tars (`inputs.pool.Shard`), writes `samples.parquet` (`schemas.samples`), `embeddings.parquet`
(`schemas.embeddings`; of further models `embeddings-NAME.parquet`) and `rejects.parquet`
(`schemas.REJECTS`) per shard.
Invariants: samples read = embedded + rejected + filtered; what a model gives does not depend on the
others; batches never cross shards, so the bits do not depend on which worker took which shard;
memory holds what `feed` and `part` keep, whatever the size of the shard.

A worker takes two shards side by side: while the model works on one, the next is read and decoded
ahead, and the one before written. So the model waits at no border between shards.
"""

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from d2prune import store
from d2prune.embed.decode.decoder import WANTED_EXTENSIONS, Decoder, Prepared
from d2prune.embed.decode.pool import DecodePool, Lane, Work
from d2prune.embed.decode.remote import AssistedPool
from d2prune.embed.decode.tokens import Tokenising
from d2prune.embed.feed import Feed, Ready
from d2prune.embed.model import batch_size
from d2prune.embed.model import names as models
from d2prune.embed.model.batch_size import BatchSize
from d2prune.embed.model.several import Flights, ModelsAtOnce
from d2prune.embed.params import EmbedParams, EmbedUnit
from d2prune.embed.part import (
    END_MARK_MISSING,
    READ,
    REJECTED,
    Part,
    commit,
    open_part,
)
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import Helpers, metrics
from d2prune.store.artifacts import Receipt

AT_ONCE = 2
"""Shards that a worker has in hand: the model is at one of them."""

MAX_PROCESSES = 32
"""Decode processes of one worker, helpers included; more than a GPU takes pictures from."""

BATCH_CUT = "batch-cut"
"""Counter: batches that exceeded the device's memory and went through the model in pieces; their last bits may differ
from those of whole batches."""

# Batches the GPU has been given and that are not booked yet: it finds the next when it is done with one.
_FLIGHTS = 2


class EmbedWorker:
    """Embeds one shard per call; `AT_ONCE` threads may call it. Loads the models once: build it where it runs."""

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
    ) -> None:
        """Loads the models.

        Args:
            folder: the stage's folder, `work_dir/embed`.
            params: what the units were planned with.
            model: as the user names it, after `models.absolute`.
            pretrained: likewise.
            device: `auto` takes a GPU if there is one.
            decode_processes: processes that decode ahead of the encoder; does not change the result.
            image_timeout: seconds of processor time after which a picture's decoder is given up.
            others: further models, as `model` and `pretrained`.
            helpers: on other machines, that decode too; change the result no more than processes do.

        Raises:
            UserError: a model here is not the one the units were planned with, or a filter needs
                what is not installed.
        """
        named = ((model, pretrained), *others)
        for given, planned in zip(named, ((params.model, params.pretrained), *params.others), strict=True):
            if (here := models.identity(*given)) != planned:
                raise UserError(f"embed.model: this machine has {here}, planned was {planned}")
        # Here, as a decode process that cannot load it says so only in its messages.
        params.filters.setup()
        self._folder = folder
        self._params = params
        # The configuration refuses `auto` with `compile`.
        compiled_rows = params.batch_size if params.compile and params.batch_size != "auto" else 0
        sources = [models.resolve(*given) for given in named]
        self._models = ModelsAtOnce(sources, params.precision, device, params.resize, compiled_rows)
        most = batch_size.limit(params.batch_size, self._models.device)
        self._batch = BatchSize(params.batch_size, most)
        preprocess, *smaller = self._models.preprocesses
        decoder = Decoder(preprocess, params.max_pixels, params.fields, params.filters, tuple(smaller))
        work: Work = decoder
        if self._models.device != "cpu":
            # At a GPU's pace the tokenizer alone would fill this process; on a CPU it is lost
            # beside the model, and a decode process that loads it takes 360 MB instead of 25.
            work = Tokenising(decoder, sources)
        # A batch that is gathered, one that waits, and what processes and helpers are at.
        most_helpers = max(0, MAX_PROCESSES - decode_processes) if helpers is not None else 0
        slots = 2 * most + 16 * (decode_processes + most_helpers)
        shape = (work, decode_processes, self._models.n_bytes, slots, AT_ONCE, image_timeout)
        self._pool = DecodePool(*shape) if helpers is None else AssistedPool(*shape, helpers, most_helpers)
        self.close = weakref.finalize(self, self._pool.close)
        """Ends the decode processes; happens by itself when the worker is collected or the program ends."""
        self._turn = threading.Lock()

    def __call__(self, unit: EmbedUnit) -> Receipt:
        """Reads, embeds and commits one shard.

        Raises:
            UserError: the shard is gone.
            InfrastructureError: storage failed, or the shard changed under the run.
            BooksError: a sample is neither embedded nor rejected.
        """
        shard, params, found = unit.shard, self._params, self._models
        with open_part(
            self._folder, unit.key, shard.name, params.fields, found.dimensions, params.names
        ) as part:
            try:
                with (
                    self._pool.lane() as lane,
                    Feed(shard.url, lane, WANTED_EXTENSIONS, params.max_member_bytes) as feed,
                    # From here on this shard has the models; until then it decodes ahead.
                    self._turn,
                ):
                    self._embed(feed, lane, part)
            except FileNotFoundError as error:
                raise UserError(f"{error}; it was there when this run began") from error
            if feed.bytes_read != shard.size:
                raise InfrastructureError(
                    f"{store.redact(shard.url)}: {feed.bytes_read} bytes came, {shard.size} were listed"
                )
            part.counters[READ] = feed.read
            part.counters[END_MARK_MISSING] += not feed.end_mark
        facts = {"dimension": found.dimensions[0], "precision": found.precision}
        if params.names:
            facts |= {"dimensions": dict(zip(params.names, found.dimensions, strict=True))}
        return commit(self._folder, unit.key, part, facts)

    def _embed(self, feed: Feed, lane: Lane, part: Part) -> None:
        flights: deque[tuple[list[Prepared], Flights]] = deque()
        waited = 0.0
        for batch in self._batches(feed, part):
            metrics.add(metrics.EMBED_WAIT_SECONDS, feed.waited - waited)
            waited = feed.waited
            samples = [ready.sample for ready in batch]
            slots = [ready.slot for ready in batch]
            pixels = self._models.gather(lane.pixels, slots)
            feed.release(slots)
            flights.append((samples, self._models.launch(pixels, samples)))
            if len(flights) == _FLIGHTS:
                self._book(*flights.popleft(), part)
        while flights:
            self._book(*flights.popleft(), part)

    def _batches(self, feed: Feed, part: Part) -> Iterator[list[Ready]]:
        batch: list[Ready] = []
        for item in feed:
            if isinstance(item, Ready):
                batch.append(item)
                if len(batch) == self._batch.size:
                    yield batch
                    batch = []
            else:
                part.reject(item)
        if batch:
            yield batch

    def _book(self, samples: list[Prepared], flights: Flights, part: Part) -> None:
        part.embed(samples, flights.settle())
        metrics.add(metrics.EMBED_BUSY_SECONDS, flights.seconds)
        self._batch.saw(len(samples), flights.seconds, self._models.fits)
        part.counters[BATCH_CUT] += flights.cut


def check_reject_rate(counters: Mapping[str, int], limit: float) -> None:
    """Fails a run whose pool is mostly unreadable.

    Raises:
        UserError: rejected / read is above `limit`; the reasons are named, most frequent first.
    """
    read, rejected = counters.get(READ, 0), counters.get(REJECTED, 0)
    if read and rejected / read > limit:
        prefix = f"{REJECTED}."
        by_reason = sorted(
            ((n, name) for name, n in counters.items() if name.startswith(prefix)), reverse=True
        )
        reasons = ", ".join(f"{n} {name.removeprefix(prefix)}" for n, name in by_reason)
        # Pictures first and captions after them, as `tar cf x.tar *.jpg *.txt` packs them, halve
        # every sample.
        halved = min(counters.get(f"{prefix}{half}-missing", 0) for half in ("image", "caption")) > read // 4
        hint = "; the files of a sample must lie side by side in the tar, as tar --sort=name packs them"
        raise UserError(
            f"{rejected} of {read} samples were rejected ({rejected / read:.1%}; {reasons}), "
            f"embed.max_reject_rate is {limit:.1%}{hint if halved else ''}"
        )
