"""What every executor offers: independent units on a pool, and groups that exchange messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Resources:
    """What the workers of a stage take. Never part of a fingerprint.

    Attributes:
        workers: number of workers.
        num_cpus: cores of each worker.
        num_gpus: GPUs of each worker; workers with fractions share one.
        units_in_flight: units each worker has at a time. Above 1, as many threads call the worker,
            so that it can start one unit while it finishes another. A worker gets a second unit
            only while there are more units than workers.
        grows: `workers` is what the cluster holds now; nodes that join later get workers too.
    """

    workers: int = 1
    num_cpus: float = 1
    num_gpus: float = 0
    units_in_flight: int = 1
    grows: bool = False


class Executor(Protocol):
    """Runs units and groups; see the package's docstring for what runs again after a failure."""

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """Yield the result of each unit as it finishes, in any order.

        Raises:
            D2PruneError: a unit failed; the message names it.
            WorkerLostError: a unit lost its worker several times.
        """
        ...

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> "Group":
        """A group of members 0 to size - 1, not built yet.

        `make_member(index)` builds a member in the process that holds it.
        """
        ...

    def cpus(self) -> int:
        """Number of single-core units that can run in parallel."""
        ...

    def cpus_per_node(self) -> int:
        """Cores of the largest node."""
        ...

    def cpus_per_gpu(self) -> float:
        """Cores per GPU of the node that has the fewest; 0 without GPUs."""
        ...

    def worker_cores(self, wanted: float) -> float:
        """Cores that one worker can use: `wanted`, or all if it is its machine's only worker."""
        ...

    def helpers(self, resources: Resources) -> "Helpers":
        """Access to cores of other machines for each worker that `map` runs with `resources`."""
        ...

    def close(self) -> None:
        """Stop what this executor started."""
        ...


class Helpers(Protocol):
    """Cores of machines without a GPU, lent to a worker on another machine.

    Picklable; used in the worker's process.
    """

    def nodes(self) -> Mapping[str, int]:
        """Nodes that can help, and the number of helpers one worker may have on each.

        The answer changes as nodes join and leave.
        """
        ...

    def start(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], node: str) -> "Helper":
        """Request a helper on a node. It builds its worker at its first unit.

        The helper ends with the process that started it.
        """
        ...


class Helper(Protocol):
    """A worker of a worker, with one core. One thread uses it; any thread may `close` it.

    Every method but `close` raises WorkerLostError if the helper is lost, with all its units.
    """

    def wait_started(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the helper to start; return whether it has started."""
        ...

    def submit(self, unit: Any) -> None:
        """Send a unit, also while the helper works on another one."""
        ...

    def result(self) -> Any:
        """Wait for the result of the oldest unit submitted.

        Raises:
            D2PruneError: what the worker raised.
        """
        ...

    def close(self) -> None:
        """End the helper, whether it is busy or not."""
        ...


Inboxes = dict[int, dict[int, Any]]
"""destination -> source -> message. Only the group that made a message can read it."""


class Group(Protocol):
    """Members with state.

    A member that is lost, or not built yet, is reported and never replaced silently. A method that
    `exchange` calls takes `inbox` (source -> message) and returns `outbox` (destination ->
    message). A message stays on the node that made it until its destination fetches it; messages
    never pass through the driver.
    """

    size: int

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """Build members, or rebuild lost ones.

        Returns:
            member -> result of its method `ready`, without the members that were lost meanwhile.
        """
        ...

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """Call a method of members.

        Returns:
            member -> result, without the members that are lost.

        Raises:
            D2PruneError: what a member raised.
        """
        ...

    def exchange(
        self, method: str, members: Sequence[int], inboxes: Inboxes, *arguments: Any
    ) -> tuple[Inboxes, set[int]]:
        """Run one round: call a method of each member with its inbox.

        Returns:
            The next inboxes, and the members that are lost. If a message can no longer be fetched,
            its source counts as lost.
        """
        ...

    def close(self) -> None:
        """End the members."""
        ...
