"""Read and decode one shard ahead of the caller, as a stream of decoded samples and rejects in tar order.

A thread reads the tar and submits samples to the decode pool, a few at a time. It waits while its
slots or bytes are used up, so memory is bounded by `slots` decoded images and `_PREFETCH_BYTES` of
samples that are not decoded yet (or one sample, if that is larger), whatever the size of the shard
and of its samples.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

from d2prune import store
from d2prune.embed.decode.decoder import DecodedSample
from d2prune.embed.decode.pool import Lane
from d2prune.embed.decode.task_queue import TASK_SAMPLES, Outcome
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarReader, TarSample

_PREFETCH_BYTES = 256 << 20
# A task takes no further samples once it holds this many bytes.
_TASK_BYTES = 2 << 20
# Blocks of a remote tar that are prefetched: a GPU consumes more than one connection delivers.
_PREFETCH_BLOCKS = 8


class Ready(NamedTuple):
    """A decoded sample, and the slot of the lane that holds its pixels until `Feed.release`."""

    sample: DecodedSample
    slot: int


class _Entry(NamedTuple):
    """A slot, and the reject found by the reader; None for a sample, whose outcome the decoder provides."""

    slot: int
    reject: Reject | None


@dataclass(frozen=True)
class _Submitted:
    """Consecutive entries of the tar, and the outcomes of the samples among them."""

    entries: Sequence[_Entry]
    outcomes: "Future[list[Outcome]]"


class Feed:
    """Iterates over the `Ready` samples and `Reject`s of one shard. Leaving its `with` block stops reading.

    Attributes:
        bytes_read: see `TarReader`; valid once exhausted.
        end_mark: see `TarReader`; valid once exhausted.
        read: samples and rejects read from the tar so far.
        waited: seconds that the caller has waited for samples to be read and decoded.
    """

    def __init__(self, url: str, lane: Lane, extensions: frozenset[str], max_member_bytes: int) -> None:
        """Start reading.

        Args:
            url: of the tar.
            lane: receives the pixels; its slots bound how many samples are decoded ahead.
            extensions: see `TarReader`.
            max_member_bytes: see `TarReader`.
        """
        self.bytes_read, self.end_mark, self.read, self.waited = 0, False, 0, 0.0
        self._url, self._lane = url, lane
        self._extensions, self._max_member_bytes = extensions, max_member_bytes
        self._change = threading.Condition()
        self._free_slots = deque(range(len(lane.pixels)))
        self._held_bytes = 0
        self._submitted: deque[_Submitted] = deque()
        self._in_flight: set[Future[list[Outcome]]] = set()
        self._stopped = self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="read")
        self._thread.start()

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading, and wait until no decode process writes to the lane's slots."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join()
        for outcomes in list(self._in_flight):
            if not outcomes.cancel():
                outcomes.exception()

    def __iter__(self) -> Iterator[Ready | Reject]:
        """Yield outcomes in tar order, waiting for each.

        Raises:
            FileNotFoundError: the shard does not exist.
            InfrastructureError: storage failed, or decode processes cannot be started.
        """
        while (submitted := self._next_submitted()) is not None:
            start = time.monotonic()
            decoded = iter(submitted.outcomes.result())
            self.waited += time.monotonic() - start
            for slot, reject in submitted.entries:
                outcome = next(decoded) if reject is None else reject
                if isinstance(outcome, Reject):
                    self.release([slot])
                    yield outcome
                else:
                    yield Ready(outcome, slot)
        if self._error is not None:
            raise self._error

    def release(self, slots: Sequence[int]) -> None:
        """Return slots whose pixels are no longer needed."""
        with self._change:
            self._free_slots.extend(slots)
            self._change.notify_all()

    def _next_submitted(self) -> _Submitted | None:
        start = time.monotonic()
        with self._change:
            while not self._submitted and not self._finished:
                self._change.wait()
            self.waited += time.monotonic() - start
            return self._submitted.popleft() if self._submitted else None

    def _run(self) -> None:
        try:
            with store.open_read(self._url, _PREFETCH_BLOCKS) as stream:
                reader = TarReader(stream, self._extensions, self._max_member_bytes, with_digests=True)
                self._read(reader)
                self.bytes_read, self.end_mark = reader.bytes_read, reader.end_mark
        except BaseException as error:
            self._error = error
        with self._change:
            self._finished = True
            self._change.notify_all()

    def _read(self, reader: TarReader) -> None:
        """Collect samples into tasks and submit each task that is full, or that nothing can be added to."""
        items: list[tuple[int, TarSample | Reject]] = []
        size = 0
        for item in reader:
            self.read += 1
            more = sum(map(len, item.members.values())) if isinstance(item, TarSample) else 0
            if items and (
                len(items) == TASK_SAMPLES or size + more > _TASK_BYTES or not self._can_hold(more)
            ):
                self._submit(items, size)
                items, size = [], 0
            slot = self._acquire_slot(more)
            if slot is None:
                return
            items.append((slot, item))
            size += more
        if items:
            self._submit(items, size)

    def _can_hold(self, size: int) -> bool:
        with self._change:
            return self._has_room(size)

    def _has_room(self, size: int) -> bool:
        return bool(self._free_slots) and (
            self._held_bytes == 0 or self._held_bytes + size <= _PREFETCH_BYTES
        )

    def _acquire_slot(self, size: int) -> int | None:
        """Wait for a slot and for room for `size` bytes; None once the feed is stopped."""
        with self._change:
            while not self._has_room(size) and not self._stopped:
                self._change.wait()
            if self._stopped:
                return None
            self._held_bytes += size
            return self._free_slots.popleft()

    def _submit(self, items: Sequence[tuple[int, TarSample | Reject]], size: int) -> None:
        samples = [(slot, item) for slot, item in items if isinstance(item, TarSample)]
        outcomes: Future[list[Outcome]]
        if samples:
            outcomes = self._lane.submit(samples)
        else:
            outcomes = Future()
            outcomes.set_result([])
        self._in_flight.add(outcomes)
        # The entries do not refer to the samples, so that their bytes are freed with the task.
        entries = [_Entry(slot, item if isinstance(item, Reject) else None) for slot, item in items]
        with self._change:
            self._submitted.append(_Submitted(entries, outcomes))
            self._change.notify_all()
        outcomes.add_done_callback(lambda future: self._finish_task(future, size))

    def _finish_task(self, outcomes: "Future[list[Outcome]]", size: int) -> None:
        self._in_flight.discard(outcomes)
        with self._change:
            self._held_bytes -= size
            self._change.notify_all()
