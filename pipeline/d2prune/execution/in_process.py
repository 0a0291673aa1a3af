"""An executor with one worker in this process: without Ray, in notebooks and in most tests."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from d2prune.errors import D2PruneError, WorkerLostError
from d2prune.execution.contract import Inboxes, Resources, ResultT, UnitT
from d2prune.execution.worker import add_unit_name, close_worker, interrupt_worker


class InProcess:
    """One worker in this process. See `Executor` for the methods."""

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`. Of `resources` only `units_in_flight` is used."""
        if not units:
            return
        worker = make_worker()
        try:
            if resources.units_in_flight == 1:
                yield from (_run_unit(worker, unit) for unit in units)
            else:
                yield from _run_on_threads(worker, units, resources.units_in_flight)
        finally:
            close_worker(worker)

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> "InProcessGroup":
        """See `Executor.group`; `resources` is not used."""
        return InProcessGroup(make_member, size)

    def cpus(self) -> int:
        """1: there is one worker, which runs one unit at a time."""
        return 1

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        return os.cpu_count() or 1

    def cpus_per_gpu(self) -> float:
        """0: a worker in this process finds a GPU by itself."""
        return 0

    def worker_cores(self, wanted: float) -> float:
        """All cores: this process is the only worker of its machine."""
        return self.cpus_per_node()

    def helpers(self, resources: Resources) -> "InProcessHelpers":
        """No helpers: there is no other machine, and the worker has all cores of this one."""
        return InProcessHelpers()

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


def _run_on_threads(
    worker: Callable[[UnitT], ResultT], units: Sequence[UnitT], n_threads: int
) -> Iterator[ResultT]:
    """Run units on several threads; yield results in the order of the units."""
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="unit")
    running: deque[Future[ResultT]] = deque()
    try:
        for unit in units:
            if len(running) == n_threads:
                yield running.popleft().result()
            running.append(pool.submit(_run_unit, worker, unit))
        while running:
            yield running.popleft().result()
    except BaseException:
        interrupt_worker(worker)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run_unit(worker: Callable[[UnitT], ResultT], unit: UnitT) -> ResultT:
    try:
        return worker(unit)
    except D2PruneError as error:
        raise add_unit_name(error, unit) from error


class InProcessGroup:
    """Members in this process. A test may `lose` one to see how the group's owner handles it."""

    def __init__(self, make_member: Callable[[int], Any], size: int) -> None:
        self.size = size
        self._make_member = make_member
        self._members: dict[int, Any] = {}

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.build`."""
        for index in members:
            self._members[index] = self._make_member(index)
        return self.call("ready", members)

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.call`."""
        return {index: getattr(self._members[index], method)() for index in members if index in self._members}

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
        """Drop a member, as if its machine had vanished."""
        self._members.pop(member, None)

    def close(self) -> None:
        """See `Group.close`."""
        self._members.clear()


@dataclass
class InProcessHelpers:
    """Helpers that are threads of this process, for tests. A test may add nodes and `lose` one.

    Attributes:
        capacity: node -> number of helpers it can hold.
        started: node -> its helpers.
    """

    capacity: dict[str, int] = field(default_factory=dict)
    started: dict[str, list["InProcessHelper"]] = field(default_factory=dict)

    def nodes(self) -> Mapping[str, int]:
        """See `Helpers.nodes`."""
        return dict(self.capacity)

    def start(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], node: str) -> "InProcessHelper":
        """See `Helpers.start`."""
        helper = InProcessHelper(make_worker)
        self.started.setdefault(node, []).append(helper)
        return helper

    def lose(self, node: str) -> None:
        """Drop a node with all its helpers, as if the machine had vanished."""
        self.capacity.pop(node, None)
        for helper in self.started.pop(node, []):
            helper.close()


class InProcessHelper:
    """A helper that is a thread of this process. See `Helper` for the methods."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[Any], Any] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self._submitted: deque[Future[Any]] = deque()
        self._closed = threading.Event()

    def wait_started(self, timeout_s: float) -> bool:
        """See `Helper.wait_started`: true without waiting."""
        self._check_open()
        return True

    def submit(self, unit: Any) -> None:
        """See `Helper.submit`."""
        self._check_open()
        self._submitted.append(self._thread.submit(self._run, unit))

    def result(self) -> Any:
        """See `Helper.result`."""
        try:
            result = self._submitted.popleft().result()
        except CancelledError:
            result = None
        self._check_open()
        return result

    def close(self) -> None:
        """See `Helper.close`."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        close_worker(self._worker)

    def _run(self, unit: Any) -> Any:
        if self._worker is None:
            self._worker = self._make_worker()
            if self._closed.is_set():
                # `close` ran before there was a worker to close.
                close_worker(self._worker)
        return self._worker(unit)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise WorkerLostError("helper lost")
