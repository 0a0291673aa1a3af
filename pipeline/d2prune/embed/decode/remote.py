"""A decode pool with helpers on other machines, for GPU machines that have too few cores for decoding.

Helpers and local processes take tasks from one queue, each when it has room for one. So work is not
divided in advance, and no task waits for a helper that has not started yet. A helper treats a task
as this machine would: a `RemoteDecoder` is a pool of one decode process, with the same limits and
the same rejects, so an image that crashes its decoder ends one process there and nothing else.

Samples go out and uint8 pixels come back through the executor (Ray's object store), two tasks per
helper at a time, which bounds the memory there as the slots bound it here. The tasks of a lost
helper are decoded again on this machine, before all others.
"""

import contextlib
import functools
import logging
import platform
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.decoder import DecodedSample, library_versions
from d2prune.embed.decode.pool import DecodePool, SampleDecoder
from d2prune.embed.decode.task_queue import TASK_SAMPLES, TASKS_IN_FLIGHT, DecodeTask, Outcome
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import Helper, Helpers, metrics
from d2prune.inputs.tar.reader import TarSample

log = logging.getLogger(__name__)

# How often the pool asks which machines can help, and how often an idle helper checks whether it is
# still wanted.
_POLL_INTERVAL_S = 2.0
_IDLE_S = 0.5
# Pause before a machine whose helper failed is tried again.
_RETRY_DELAY_S = 20.0


class RemoteDecoder:
    """The worker of a helper: decodes one task per call, `TASKS_IN_FLIGHT` threads concurrently."""

    def __init__(self, decoder: SampleDecoder, slot_bytes: int, timeout_s: float, libraries: str) -> None:
        """Start a pool of one process.

        Args:
            decoder: see `DecodePool`.
            slot_bytes: see `DecodePool`.
            timeout_s: see `DecodePool`.
            libraries: `library_versions` of the machine that receives the pixels.

        Raises:
            UserError: this machine has other library versions.
        """
        if (here := library_versions()) != libraries:
            raise UserError(
                f"embed.decode = remote: {platform.node()} decodes with {here}, "
                f"the model's machine with {libraries}; pixels may differ, "
                "expected the same versions on all machines"
            )
        self._pool = DecodePool(decoder, 1, slot_bytes, TASK_SAMPLES, TASKS_IN_FLIGHT, timeout_s)
        self.close = weakref.finalize(self, self._pool.close)

    def __call__(self, samples: Sequence[TarSample]) -> tuple[list[Outcome], npt.NDArray[np.uint8]]:
        """Decode the samples of one task.

        Returns:
            An outcome per sample, and uint8 [N, bytes of a slot]: its pixels, undefined for rejects.

        Raises:
            InfrastructureError: no decode process can be started here.
            D2PruneError: the decoder has a defect.
        """
        with self._pool.lane() as lane:
            outcomes = lane.submit(list(enumerate(samples))).result()
            return outcomes, lane.pixels[: len(samples)].copy()


class AssistedPool(DecodePool):
    """A `DecodePool` with helpers; see the module docstring."""

    def __init__(
        self,
        decoder: SampleDecoder,
        processes: int,
        slot_bytes: int,
        slots: int,
        lanes: int,
        timeout_s: float,
        helpers: Helpers,
        max_helpers: int,
    ) -> None:
        """Start looking for helpers.

        Args:
            decoder: see `DecodePool`, also for the next five.
            processes: on this machine.
            slot_bytes: size of a slot.
            slots: in each lane.
            lanes: of the pool.
            timeout_s: processor time that one sample may take.
            helpers: provides the helpers.
            max_helpers: how many there may be at a time.
        """
        super().__init__(decoder, processes, slot_bytes, slots, lanes, timeout_s)
        self._helpers, self._max_helpers = helpers, max_helpers
        self._make_decoder = functools.partial(
            RemoteDecoder, decoder, slot_bytes, timeout_s, library_versions()
        )
        self._allowed: dict[str, int] = {}
        self._running: Counter[str] = Counter()
        self._open_helpers: set[Helper] = set()
        self._helpers_lock = threading.Lock()
        self._stop = threading.Event()
        self._manager = threading.Thread(target=self._manage_helpers, daemon=True, name="helpers")
        self._manager.start()

    def close(self) -> None:
        """End helpers and processes; futures that are not done fail."""
        self._stop.set()
        with self._helpers_lock:
            open_helpers = list(self._open_helpers)
        for helper in open_helpers:
            helper.close()
        super().close()
        self._manager.join(timeout=10)

    def _manage_helpers(self) -> None:
        """Start a helper wherever this worker may have more than are running."""
        while not self._stop.is_set():
            try:
                places = dict(self._helpers.nodes())
            except Exception as error:
                # The cluster may be unreachable for a while; decoding continues on this machine.
                log.warning("cannot list machines for decoding: %s", " ".join(str(error).split())[:200])
                places = {}
            with self._helpers_lock:
                self._allowed = _share_out(places, self._max_helpers)
                lacking = [
                    place for place, n in self._allowed.items() for _ in range(n - self._running[place])
                ]
                self._running.update(lacking)
            for place in lacking:
                threading.Thread(target=self._run_helper, args=(place,), daemon=True, name="helper").start()
            self._stop.wait(_POLL_INTERVAL_S)

    def _run_helper(self, place: str) -> None:
        """Start one helper and give it tasks until it ends; runs on its own thread."""
        pending: deque[DecodeTask] = deque()
        released = False
        try:
            with self._open_helper(place) as helper:
                released = self._serve_helper(helper, place, pending)
        except InfrastructureError as error:
            for task in pending:
                if not self._tasks.give_back(task):
                    task.future.set_exception(self._closed_error())
            if not self._stop.is_set():
                log.warning("lost a decode helper; %d tasks are decoded again here: %s", len(pending), error)
                self._stop.wait(_RETRY_DELAY_S)
        except Exception as error:
            # A defect of the decoder or of this thread must reach the callers that wait for the tasks.
            for task in pending:
                task.future.set_exception(error)
            log.warning("a decode helper failed: %s", " ".join(str(error).split())[:300])
            self._stop.wait(_RETRY_DELAY_S)
        if not released:
            with self._helpers_lock:
                self._running[place] -= 1

    @contextlib.contextmanager
    def _open_helper(self, place: str) -> Iterator[Helper]:
        helper = self._helpers.start(self._make_decoder, place)
        with self._helpers_lock:
            self._open_helpers.add(helper)
        try:
            yield helper
        finally:
            with self._helpers_lock:
                self._open_helpers.discard(helper)
            helper.close()

    def _serve_helper(self, helper: Helper, place: str, pending: deque[DecodeTask]) -> bool:
        """Give a helper tasks. Return True once it is surplus and released, False once the pool is closed."""
        released = False
        while not helper.wait_started(_IDLE_S):
            if self._stop.is_set() or self._release_surplus(place):
                return not self._stop.is_set()
        while True:
            released = released or self._release_surplus(place)
            if not released and len(pending) < TASKS_IN_FLIGHT:
                task = self._tasks.take(0 if pending else _IDLE_S, returned=False)
                if task is not None:
                    pending.append(task)
                    helper.submit([sample for _, sample in task.samples])
                    continue
            if pending:
                self._finish_remote_task(pending[0], *helper.result())
                pending.popleft()
            elif released or self._stop.is_set():
                return released

    def _release_surplus(self, place: str) -> bool:
        """Return whether a helper is one too many on its machine; if so, it no longer counts as running."""
        with self._helpers_lock:
            surplus = self._running[place] > self._allowed.get(place, 0)
            self._running[place] -= surplus
            return surplus

    def _finish_remote_task(
        self, task: DecodeTask, outcomes: list[Outcome], pixels: npt.NDArray[np.uint8]
    ) -> None:
        """Copy the pixels to the task's slots, then set its outcomes."""
        for (offset, _), outcome, row in zip(task.samples, outcomes, pixels, strict=True):
            if isinstance(outcome, DecodedSample):
                self._arena[offset : offset + len(row)] = row.data
        metrics.add(metrics.SAMPLES_DECODED_REMOTELY, len(outcomes))
        task.future.set_result(outcomes)


def _share_out(places: Mapping[str, int], max_helpers: int) -> dict[str, int]:
    """Return helpers per place: at most as many as it offers, `max_helpers` in all, taken in turn."""
    turns = sorted((turn, place) for place, offered in places.items() for turn in range(offered))
    return dict(Counter(place for _, place in turns[:max_helpers]))
