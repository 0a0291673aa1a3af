"""One worker, in this process: where Ray is not installed, in notebooks, in most tests."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.execution.contract import Inboxes, Resources, ResultT, UnitT, close, name_of, named, stop, tried


class InProcess:
    """One worker, in this process: where Ray is not installed, in notebooks, in most tests."""

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`; one worker, so of `resources` only `at_once` counts."""
        if not units:
            return
        worker = make_worker()
        try:
            if resources.at_once == 1:
                yield from (_attempt(worker, unit) for unit in units)
            else:
                yield from _side_by_side(worker, units, resources.at_once)
        finally:
            close(worker)

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> "InProcessGroup":
        """See `Executor.group`; `resources` is not used."""
        return InProcessGroup(make_member, size)

    def cpus(self) -> int:
        """See `Executor.cpus`: one worker, so one unit at a time."""
        return 1

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        return os.cpu_count() or 1

    def cpus_per_gpu(self) -> float:
        """See `Executor.cpus_per_gpu`: a worker here finds a GPU by itself."""
        return 0

    def worker_cores(self, wanted: float) -> float:
        """See `Executor.worker_cores`: this process is the only worker of its machine."""
        return self.cpus_per_node()

    def helpers(self, resources: Resources) -> "InProcessHelpers":
        """See `Executor.helpers`: there is no other machine, and the worker has all cores of this one."""
        return InProcessHelpers()

    def close(self) -> None:
        """Nothing to stop."""


def _side_by_side(
    worker: Callable[[UnitT], ResultT], units: Sequence[UnitT], at_once: int
) -> Iterator[ResultT]:
    """Results of `at_once` threads, in the units' order."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="unit")
    running: deque[Future[ResultT]] = deque()
    try:
        for unit in units:
            if len(running) == at_once:
                yield running.popleft().result()
            running.append(pool.submit(_attempt, worker, unit))
        while running:
            yield running.popleft().result()
    except BaseException:
        stop(worker)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(worker: Callable[[UnitT], ResultT], unit: UnitT) -> ResultT:
    """The unit's result, after as many tries as it takes or is given."""
    try:
        return tried(lambda: worker(unit), f"unit {name_of(unit)}")
    except D2PruneError as error:
        raise named(error, unit) from error


class InProcessGroup:
    """Members in this process; a test may `lose` one to see what a group's user does about it."""

    def __init__(self, make_member: Callable[[int], Any], size: int) -> None:
        self.size = size
        self._make_member = make_member
        self._members: dict[int, Any] = {}

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.build`."""
        for index in members:
            self._members[index] = tried(partial(self._make_member, index), f"member {index}")
        return self.call("ready", members)

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.call`."""
        return {
            index: tried(getattr(self._members[index], method), f"member {index}: {method}")
            for index in members
            if index in self._members
        }

    def exchange(
        self, method: str, members: Sequence[int], inboxes: Inboxes, *arguments: Any
    ) -> tuple[Inboxes, set[int]]:
        """See `Group.exchange`."""
        outgoing: Inboxes = {}
        for index in members:
            if index in self._members:
                outbox = getattr(self._members[index], method)(inboxes.get(index, {}), *arguments)
                for destination, message in outbox.items():
                    outgoing.setdefault(destination, {})[index] = message
        return outgoing, {index for index in members if index not in self._members}

    def lose(self, member: int) -> None:
        """Forget a member, as if its machine had vanished."""
        self._members.pop(member, None)

    def close(self) -> None:
        """See `Group.close`."""
        self._members.clear()


@dataclass
class InProcessHelpers:
    """Helpers that are threads of this process; a test may add places and `lose` one to see what becomes of its work.

    Attributes:
        room: helpers that each place holds.
        hired: those that work, by place.
    """

    room: dict[str, int] = field(default_factory=dict)
    hired: dict[str, list["InProcessHelper"]] = field(default_factory=dict)

    def places(self) -> Mapping[str, int]:
        """See `Helpers.places`."""
        return dict(self.room)

    def hire(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], place: str) -> "InProcessHelper":
        """See `Helpers.hire`."""
        helper = InProcessHelper(make_worker)
        self.hired.setdefault(place, []).append(helper)
        return helper

    def lose(self, place: str) -> None:
        """Forget a place with all its helpers, as if the machine had vanished."""
        self.room.pop(place, None)
        for helper in self.hired.pop(place, []):
            helper.close()


class InProcessHelper:
    """See `Helper`."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[Any], Any] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self._sent: deque[Future[Any]] = deque()
        self._lost = threading.Event()

    def here(self, timeout_s: float) -> bool:
        """See `Helper.here`: at once."""
        self._check()
        return True

    def send(self, unit: Any) -> None:
        """See `Helper.send`."""
        self._check()
        self._sent.append(self._thread.submit(self._run, unit))

    def receive(self) -> Any:
        """See `Helper.receive`."""
        try:
            result = self._sent.popleft().result()
        except CancelledError:
            result = None
        self._check()
        return result

    def close(self) -> None:
        """See `Helper.close`."""
        self._lost.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        close(self._worker)

    def _run(self, unit: Any) -> Any:
        if self._worker is None:
            self._worker = self._make_worker()
            if self._lost.is_set():
                # Whoever closed this found no worker to end.
                close(self._worker)
        return self._worker(unit)

    def _check(self) -> None:
        if self._lost.is_set():
            raise InfrastructureError("helper lost")
