"""An executor that checks after each unit whether this run may continue.

A run that lost its lease stops within one unit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from d2prune.execution.contract import Executor, Group, Helpers, Inboxes, Resources, ResultT, UnitT


class Guarded:
    """Wraps `inner` and calls `guard` after each unit and before each round.

    `guard` raises if the run must stop.
    """

    def __init__(self, inner: Executor, guard: Callable[[], None]) -> None:
        self.inner, self._guard = inner, guard

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`."""
        for result in self.inner.map(make_worker, units, resources):
            self._guard()
            yield result

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> Group:
        """See `Executor.group`."""
        return GuardedGroup(self.inner.group(make_member, size, resources), self._guard)

    def cpus(self) -> int:
        """See `Executor.cpus`."""
        return self.inner.cpus()

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        return self.inner.cpus_per_node()

    def cpus_per_gpu(self) -> float:
        """See `Executor.cpus_per_gpu`."""
        return self.inner.cpus_per_gpu()

    def worker_cores(self, wanted: float) -> float:
        """See `Executor.worker_cores`."""
        return self.inner.worker_cores(wanted)

    def helpers(self, resources: Resources) -> Helpers:
        """See `Executor.helpers`."""
        return self.inner.helpers(resources)

    def close(self) -> None:
        """See `Executor.close`."""
        self.inner.close()


class GuardedGroup:
    """Wraps a group and calls `guard` before each exchange."""

    def __init__(self, inner: Group, guard: Callable[[], None]) -> None:
        self.size = inner.size
        self._inner, self._guard = inner, guard

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.build`."""
        return self._inner.build(members)

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """See `Group.call`."""
        return self._inner.call(method, members)

    def exchange(
        self, method: str, members: Sequence[int], inboxes: Inboxes, *arguments: Any
    ) -> tuple[Inboxes, set[int]]:
        """See `Group.exchange`."""
        self._guard()
        return self._inner.exchange(method, members, inboxes, *arguments)

    def close(self) -> None:
        """See `Group.close`."""
        self._inner.close()
