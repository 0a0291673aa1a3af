"""Tasks of a decode pool, and the queue from which decode processes and remote helpers take them."""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from d2prune.embed.decode.decoder import DecodedSample
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarSample

Outcome = DecodedSample | Reject

TASK_SAMPLES = 8
"""Samples in a task, at most."""

TASKS_IN_FLIGHT = 2
"""Tasks that a process or helper holds at a time: one that it works on, and one prefetched."""


@dataclass(eq=False)
class DecodeTask:
    """A few samples, where their pixels go, and the rejects so far.

    Attributes:
        number: identifies the task within its pool.
        samples: (offset in the arena, sample).
        future: receives the outcomes, in the order of the samples.
        rejected: index of the sample -> its reject, for samples that ended too many processes.
        deaths: index of the sample -> how many processes it ended.
    """

    number: int
    samples: Sequence[tuple[int, TarSample]]
    future: "Future[list[Outcome]]" = field(default_factory=Future)
    rejected: dict[int, Reject] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)

    def remaining(self) -> list[int]:
        """Return the indices of the samples that are still to be decoded."""
        return [index for index in range(len(self.samples)) if index not in self.rejected]


class TaskQueue:
    """A first-in, first-out queue of tasks, plus the tasks that lost helpers gave back.

    Returned tasks come before all others, since their batch is waiting for them, and go to processes
    of this machine only, since whatever ended one helper may end the next. A task that was taken
    is running: only its taker may finish it or give it back.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._new: deque[DecodeTask] = deque()
        self._returned: deque[DecodeTask] = deque()
        self._closed = False

    def put(self, task: DecodeTask) -> bool:
        """Append a new task. Does nothing and returns False if the queue is closed."""
        with self._change:
            if not self._closed:
                self._new.append(task)
                self._change.notify_all()
            return not self._closed

    def give_back(self, task: DecodeTask) -> bool:
        """Return a task that was taken. Does nothing and returns False if the queue is closed."""
        with self._change:
            if not self._closed:
                self._returned.append(task)
                self._change.notify_all()
            return not self._closed

    def take(self, timeout: float | None = None, returned: bool = True) -> DecodeTask | None:
        """Take the next task; None if there is none in time, or the queue is closed.

        Args:
            timeout: seconds to wait; None: until there is one.
            returned: whether to take tasks that were given back.
        """
        with self._change:
            while True:
                if self._closed:
                    return None
                if returned and self._returned:
                    return self._returned.popleft()
                while self._new:
                    task = self._new.popleft()
                    if task.future.set_running_or_notify_cancel():
                        return task
                if not self._change.wait(timeout):
                    return None

    def close(self) -> list[DecodeTask]:
        """Hand out no more tasks; return those that were not taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            left = [
                *self._returned,
                *(task for task in self._new if task.future.set_running_or_notify_cancel()),
            ]
            self._new.clear()
            self._returned.clear()
            return left
