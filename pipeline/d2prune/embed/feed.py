"""One shard as a stream of decoded samples and rejects, in tar order, made ahead of whoever takes them.

A thread reads the tar and hands samples to the decode pool, a few at a time. It stops where its
slots or bytes are used
up: what is in memory is bounded by `slots` decoded pictures and `_AHEAD_BYTES` of samples that wait
to be decoded (or one sample, if that is larger), whatever the size of the shard and of the samples in it.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from d2prune import store
from d2prune.embed.decode.decoder import Prepared
from d2prune.embed.decode.pool import Lane
from d2prune.embed.decode.tasks import TASK_SAMPLES, Outcome
from d2prune.inputs.tar.reader import Fault, Sample, TarReader

_AHEAD_BYTES = 256 << 20
# Bytes after which a message to a decode process is not filled any further.
_TASK_BYTES = 2 << 20
# Blocks of a remote tar under way at once: a GPU eats more than one connection brings.
_BLOCKS_AHEAD = 8


class Ready(NamedTuple):
    """A decoded sample, and the slot of the lane that holds its pixels until `Feed.release`."""

    sample: Prepared
    slot: int


class Reject(NamedTuple):
    """A sample that will not be embedded."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class _Chunk:
    """Consecutive things of the tar, each with its slot, and what becomes of the samples among them."""

    events: Sequence[tuple[int, Sample | Fault]]
    outcomes: "Future[list[Outcome]]"


class Feed:
    """Iterates over `Ready` and `Reject` of one shard; `with` ends the reading, also before its end.

    Attributes (valid once exhausted):
        bytes_read, end_mark: see `TarReader`.
        read: samples and faults met.
        waited: seconds that the iteration waited for samples to be read and decoded; valid at any time.
    """

    def __init__(self, url: str, lane: Lane, extensions: frozenset[str], max_member_bytes: int) -> None:
        """Starts reading at once.

        Args:
            url: of the tar.
            lane: where decoded pictures go; its slots bound how many there are at a time.
            extensions: see `TarReader`.
            max_member_bytes: likewise.
        """
        self.bytes_read, self.end_mark, self.read, self.waited = 0, False, 0, 0.0
        self._url, self._lane = url, lane
        self._extensions, self._max_member_bytes = extensions, max_member_bytes
        self._change = threading.Condition()
        self._free = deque(range(len(lane.pixels)))
        self._held = 0
        self._made: deque[_Chunk] = deque()
        self._open: set[Future[list[Outcome]]] = set()
        self._stopped = self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="read")
        self._thread.start()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading, and wait for decode processes to be done with the lane's slots."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()
        for outcomes in list(self._open):
            if not outcomes.cancel():
                outcomes.exception()

    def __iter__(self) -> Iterator[Ready | Reject]:
        """Waits for the next thing.

        Raises:
            FileNotFoundError: the shard is gone.
            InfrastructureError: storage failed, or decode processes cannot be started.
        """
        while (chunk := self._next()) is not None:
            start = time.monotonic()
            found = iter(chunk.outcomes.result())
            self.waited += time.monotonic() - start
            for slot, event in chunk.events:
                outcome = next(found) if isinstance(event, Sample) else event
                if isinstance(outcome, Prepared):
                    yield Ready(outcome, slot)
                else:
                    self.release([slot])
                    yield Reject(event.key, outcome.reason, outcome.detail)
        if self._error is not None:
            raise self._error

    def release(self, slots: Sequence[int]) -> None:
        """Give slots back whose pixels are not needed any more."""
        with self._change:
            self._free.extend(slots)
            self._change.notify_all()

    def _next(self) -> _Chunk | None:
        start = time.monotonic()
        with self._change:
            while not self._made and not self._finished:
                self._change.wait()
            self.waited += time.monotonic() - start
            return self._made.popleft() if self._made else None

    def _run(self) -> None:
        try:
            with store.open_read(self._url, _BLOCKS_AHEAD) as stream:
                reader = TarReader(stream, self._extensions, self._max_member_bytes)
                self._read(reader)
                self.bytes_read, self.end_mark = reader.bytes_read, reader.end_mark
        except BaseException as error:
            self._error = error
        with self._change:
            self._finished = True
            self._change.notify_all()

    def _read(self, reader: TarReader) -> None:
        events: list[tuple[int, Sample | Fault]] = []
        size = 0
        for event in reader:
            self.read += 1
            more = sum(map(len, event.members.values())) if isinstance(event, Sample) else 0
            if events and (
                len(events) == TASK_SAMPLES or size + more > _TASK_BYTES or not self._has_room(more)
            ):
                self._submit(events, size)
                events, size = [], 0
            slot = self._take(more)
            if slot is None:
                return
            events.append((slot, event))
            size += more
        if events:
            self._submit(events, size)

    def _has_room(self, size: int) -> bool:
        with self._change:
            return bool(self._free) and (self._held == 0 or self._held + size <= _AHEAD_BYTES)

    def _take(self, size: int) -> int | None:
        """A slot, once there is one and room for the sample's bytes; None if nobody wants them any more."""
        with self._change:
            while not (self._free and (self._held == 0 or self._held + size <= _AHEAD_BYTES)):
                if self._stopped:
                    return None
                self._change.wait()
            if self._stopped:
                return None
            self._held += size
            return self._free.popleft()

    def _submit(self, events: Sequence[tuple[int, Sample | Fault]], size: int) -> None:
        samples = [(slot, event) for slot, event in events if isinstance(event, Sample)]
        outcomes: Future[list[Outcome]]
        if samples:
            outcomes = self._lane.submit(samples)
        else:
            outcomes = Future()
            outcomes.set_result([])
        self._open.add(outcomes)
        with self._change:
            self._made.append(_Chunk([(slot, _light(event)) for slot, event in events], outcomes))
            self._change.notify_all()
        outcomes.add_done_callback(lambda future: self._decoded(future, size))

    def _decoded(self, outcomes: "Future[list[Outcome]]", size: int) -> None:
        self._open.discard(outcomes)
        with self._change:
            self._held -= size
            self._change.notify_all()


def _light(event: Sample | Fault) -> Sample | Fault:
    """The event without its bytes, which the decode task holds as long as it needs them."""
    if isinstance(event, Fault):
        return event
    return Sample(event.key, event.offset, event.size, {}, {}, ())
