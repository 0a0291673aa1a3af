"""Tasks of a decode pool, and the queue in which they wait for a process of this machine or a helper on another."""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from d2prune.embed.decode.decoder import Prepared, Rejected
from d2prune.inputs.tar.reader import Sample

Outcome = Prepared | Rejected

TASK_SAMPLES = 8
"""Samples that a task holds at most."""

TASKS_IN_HAND = 2
"""Tasks that a process or helper has at a time: while one is under way the next is there already."""


@dataclass(eq=False)
class Task:
    """A few samples, where their pixels go, and what became of them so far.

    Attributes:
        number: tells a pool's tasks apart.
        samples: (offset in the arena, sample).
        future: gets the outcomes, in the order of the samples.
        rejected: samples that ended too many processes.
        deaths: how many processes each sample ended.
    """

    number: int
    samples: Sequence[tuple[int, Sample]]
    future: "Future[list[Outcome]]" = field(default_factory=Future)
    rejected: dict[int, Rejected] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)

    def left(self) -> list[int]:
        """Indices of the samples that are still to be decoded."""
        return [index for index in range(len(self.samples)) if index not in self.rejected]


class Tasks:
    """First in, first out; what a helper gave back comes before all that, and goes to this machine's processes only.

    Before, since the batch it belongs to waits for it; here, since whatever ended one helper may
    end the next. A task that was taken is running: only its taker may finish it or give it back.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._fresh: deque[Task] = deque()
        self._returned: deque[Task] = deque()
        self._closed = False

    def put(self, task: Task) -> None:
        """Let a new task wait."""
        with self._change:
            self._fresh.append(task)
            self._change.notify_all()

    def give_back(self, task: Task) -> bool:
        """Let a task wait again that was taken; False, and nothing done, where the queue is closed."""
        with self._change:
            if not self._closed:
                self._returned.append(task)
                self._change.notify_all()
            return not self._closed

    def take(self, timeout: float | None = None, returned: bool = True) -> Task | None:
        """The next task; None where none came in time, or the queue is closed.

        Args:
            timeout: seconds to wait; None: until one comes.
            returned: whether those that a helper gave back are welcome.
        """
        with self._change:
            while True:
                if self._closed:
                    return None
                if returned and self._returned:
                    return self._returned.popleft()
                while self._fresh:
                    task = self._fresh.popleft()
                    if task.future.set_running_or_notify_cancel():
                        return task
                if not self._change.wait(timeout):
                    return None

    def close(self) -> list[Task]:
        """Give no more tasks out; returns those that nobody will take."""
        with self._change:
            self._closed = True
            self._change.notify_all()
            left = [
                *self._returned,
                *(task for task in self._fresh if task.future.set_running_or_notify_cancel()),
            ]
            self._fresh.clear()
            self._returned.clear()
            return left
