"""A decode pool that has helpers on other machines beside its own processes, where a GPU's machine has too few cores.

Helpers and processes take tasks from one queue, each when it has room for one: so nothing is
divided beforehand, and no task waits for a helper that is not there yet. A helper does with a task
what this machine would do: a `RemoteDecoder` is a pool of one decode process, with the same limits
and the same rejects, so a picture that crashes its decoder ends a process there and nothing else.

Samples go out and uint8 pixels come back through the executor (Ray's object store), two tasks per
helper at a time: that bounds what lies there, as the slots bound what lies here. The tasks of a
helper that is lost are done again on this machine, ahead of all others.
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

from d2prune.embed.decode import decoder
from d2prune.embed.decode.decoder import Prepared
from d2prune.embed.decode.pool import DecodePool, Work
from d2prune.embed.decode.tasks import TASK_SAMPLES, TASKS_IN_HAND, Outcome, Task
from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import Helper, Helpers, metrics
from d2prune.inputs.tar.reader import Sample

log = logging.getLogger(__name__)

# How often it is asked where helpers may be had, and how soon an idle helper sees that it is not
# wanted any more.
_LOOK_EVERY_S = 2.0
_IDLE_S = 0.5
# A machine whose helpers cannot work is not asked again at once.
_AFTER_LOSS_S = 20.0


class RemoteDecoder:
    """The worker of a helper: decodes the samples of one task, `TASKS_IN_HAND` threads side by side."""

    def __init__(self, work: Work, slot_bytes: int, timeout_s: float, libraries: str) -> None:
        """Arguments as of `DecodePool`; `libraries` are those of the machine that gets the pixels.

        Raises:
            UserError: those here are others.
        """
        if (here := decoder.libraries()) != libraries:
            raise UserError(
                f"embed.decode = remote: {platform.node()} decodes with {here}, the model's machine with {libraries}; "
                "pixels may differ, expected the same on all machines"
            )
        self._pool = DecodePool(work, 1, slot_bytes, TASK_SAMPLES, TASKS_IN_HAND, timeout_s)
        self.close = weakref.finalize(self, self._pool.close)

    def __call__(self, samples: Sequence[Sample]) -> tuple[list[Outcome], npt.NDArray[np.uint8]]:
        """What became of each sample, and its pixels, uint8 [N, bytes of one picture] (of a rejected one, anything).

        Raises:
            InfrastructureError: no decode process can be started here.
            D2PruneError: the work has a defect.
        """
        with self._pool.lane() as lane:
            outcomes = lane.submit(list(enumerate(samples))).result()
            return outcomes, lane.pixels[: len(samples)].copy()


class AssistedPool(DecodePool):
    """See the module's text; used like a `DecodePool`."""

    def __init__(
        self,
        work: Work,
        processes: int,
        slot_bytes: int,
        slots: int,
        lanes: int,
        timeout_s: float,
        helpers: Helpers,
        most: int,
    ) -> None:
        """Looks for helpers from now on.

        Args:
            work: as of `DecodePool`, like the next five.
            processes: on this machine.
            slot_bytes: of one picture.
            slots: of each lane.
            lanes: of the pool.
            timeout_s: processor time that one sample may take.
            helpers: where they come from.
            most: how many there may be at a time.
        """
        super().__init__(work, processes, slot_bytes, slots, lanes, timeout_s)
        self._helpers, self._most = helpers, most
        self._make_decoder = functools.partial(
            RemoteDecoder, work, slot_bytes, timeout_s, decoder.libraries()
        )
        self._may: dict[str, int] = {}
        self._has: Counter[str] = Counter()
        self._hired: set[Helper] = set()
        self._helping = threading.Lock()
        self._stop = threading.Event()
        self._manager = threading.Thread(target=self._look, daemon=True, name="helpers")
        self._manager.start()

    def close(self) -> None:
        """End helpers and processes; futures that are not done fail."""
        self._stop.set()
        with self._helping:
            hired = list(self._hired)
        for helper in hired:
            helper.close()
        super().close()
        self._manager.join(timeout=10)

    def _look(self) -> None:
        """Hire wherever this worker may have more helpers than it has."""
        while not self._stop.is_set():
            try:
                places = dict(self._helpers.nodes())
            except Exception as error:
                # Whoever knows the machines may be away for a while; the pictures do not wait for that.
                log.warning("no machines to decode on are known: %s", " ".join(str(error).split())[:200])
                places = {}
            with self._helping:
                self._may = _shares(places, self._most)
                lacking = [place for place, n in self._may.items() for _ in range(n - self._has[place])]
                self._has.update(lacking)
            for place in lacking:
                threading.Thread(target=self._employ, args=(place,), daemon=True, name="helper").start()
            self._stop.wait(_LOOK_EVERY_S)

    def _employ(self, place: str) -> None:
        """One helper's life, on a thread of its own."""
        pending: deque[Task] = deque()
        dismissed = False
        try:
            with self._hire(place) as helper:
                dismissed = self._serve_helper(helper, place, pending)
        except InfrastructureError as error:
            for task in pending:
                if not self._tasks.give_back(task):
                    task.future.set_exception(self._stopped())
            if not self._stop.is_set():
                log.warning("a decode helper is lost, %d tasks are done again here: %s", len(pending), error)
                self._stop.wait(_AFTER_LOSS_S)
        except Exception as error:
            # A defect, of the work or of this thread, must reach whoever waits for the tasks.
            for task in pending:
                task.future.set_exception(error)
            log.warning("a decode helper failed: %s", " ".join(str(error).split())[:300])
            self._stop.wait(_AFTER_LOSS_S)
        if not dismissed:
            with self._helping:
                self._has[place] -= 1

    @contextlib.contextmanager
    def _hire(self, place: str) -> Iterator[Helper]:
        helper = self._helpers.start(self._make_decoder, place)
        with self._helping:
            self._hired.add(helper)
        try:
            yield helper
        finally:
            with self._helping:
                self._hired.discard(helper)
            helper.close()

    def _serve_helper(self, helper: Helper, place: str, pending: deque[Task]) -> bool:
        """Give it tasks until nobody wants it any more; True if it was dismissed, False if the pool is closed."""
        dismissed = False
        while not helper.wait_started(_IDLE_S):
            if self._stop.is_set() or self._dismiss(place):
                return not self._stop.is_set()
        while True:
            dismissed = dismissed or self._dismiss(place)
            if not dismissed and len(pending) < TASKS_IN_HAND:
                task = self._tasks.take(0 if pending else _IDLE_S, returned=False)
                if task is not None:
                    pending.append(task)
                    helper.submit([sample for _, sample in task.samples])
                    continue
            if pending:
                self._write(pending[0], *helper.result())
                pending.popleft()
            elif dismissed or self._stop.is_set():
                return dismissed

    def _dismiss(self, place: str) -> bool:
        """Whether there is one too many on that machine; whoever is told so counts no more."""
        with self._helping:
            surplus = self._has[place] > self._may.get(place, 0)
            self._has[place] -= surplus
            return surplus

    def _write(self, task: Task, outcomes: list[Outcome], pixels: npt.NDArray[np.uint8]) -> None:
        """Put the pixels where the task wants them, then its outcomes."""
        for (offset, _), outcome, row in zip(task.samples, outcomes, pixels, strict=True):
            if isinstance(outcome, Prepared):
                self._arena[offset : offset + len(row)] = row.data
        metrics.add(metrics.SAMPLES_DECODED_REMOTELY, len(outcomes))
        task.future.set_result(outcomes)


def _shares(places: Mapping[str, int], most: int) -> dict[str, int]:
    """At most so many as each place offers, `most` in all, by turns."""
    turns = sorted((turn, place) for place, offered in places.items() for turn in range(offered))
    return dict(Counter(place for _, place in turns[:most]))
