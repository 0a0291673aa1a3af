"""What every executor promises: independent units on a pool, and groups of members that exchange messages."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from d2prune.errors import D2PruneError, InfrastructureError, UserError

log = logging.getLogger(__name__)

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")

ATTEMPTS = 4
BACKOFF_S = 0.5


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage takes. Never part of a fingerprint.

    Attributes:
        workers: how many work side by side.
        num_cpus: cores each holds.
        num_gpus: GPUs each holds; fractions share one.
        at_once: units each has in hand; above 1, as many threads call it, so that it can begin one
            while it ends another. A second unit is only given while there are more units than workers.
        grows: `workers` is what the cluster holds now; machines that join later get workers too.
    """

    workers: int = 1
    num_cpus: float = 1
    num_gpus: float = 0
    at_once: int = 1
    grows: bool = False


class Executor(Protocol):
    """Runs units; see the module's text for what is retried."""

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """Yield the result of each unit as it finishes, in any order.

        Raises:
            D2PruneError: a unit failed for good; the message names it.
        """
        ...

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> "Group":
        """Members 0 .. size-1, none of them built yet; `make_member(index)` builds one where it lives."""
        ...

    def cpus(self) -> int:
        """How many units of one core may run side by side."""
        ...

    def cpus_per_node(self) -> int:
        """Cores of the largest machine."""
        ...

    def cpus_per_gpu(self) -> float:
        """Cores for each GPU, on the machine that has fewest; 0 where there is no GPU."""
        ...

    def worker_cores(self, wanted: float) -> float:
        """Cores one worker can use: what it asked for, or the whole machine where it is the only worker."""
        ...

    def helpers(self, resources: Resources) -> "Helpers":
        """What each of the workers that `map` runs with `resources` may use of other machines."""
        ...

    def close(self) -> None:
        """Stop what this executor started."""
        ...


class Helpers(Protocol):
    """Cores of machines without a GPU, lent to a worker on another machine. Picklable; used where the worker lives."""

    def places(self) -> Mapping[str, int]:
        """Machines that can help, and how many helpers one worker may have on each; changes as machines come and go."""
        ...

    def hire(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], place: str) -> "Helper":
        """Ask for one on that machine, built from `make_worker` at its first unit. It ends with whoever hired it."""
        ...


class Helper(Protocol):
    """One worker of a worker, with a core of its own. One thread uses it; any may `close` it."""

    def here(self, timeout_s: float) -> bool:
        """Whether it has found room, after waiting so long at most.

        Raises:
            InfrastructureError: it is lost, as with the methods below.
        """
        ...

    def send(self, unit: Any) -> None:
        """Hand it a unit, also while it is at another one."""
        ...

    def receive(self) -> Any:
        """Wait for the result of the oldest unit it has.

        Raises:
            D2PruneError: what the worker raised; an `InfrastructureError` where the helper is lost,
                with all it had.
        """
        ...

    def close(self) -> None:
        """End it, whatever it is at."""
        ...


class Group(Protocol):
    """Members with state. A member that is lost (or not built yet) is told of, never silently replaced.

    A method called by `exchange` takes `inbox` (source -> message) and returns `outbox`
    (destination -> message). Messages stay where they were made until their destination fetches
    them; they never pass through the driver.
    """

    size: int

    def build(self, members: Sequence[int]) -> dict[int, Any]:
        """Build members, anew where they were lost, and return what each one's `ready` says; the lost are left out."""
        ...

    def call(self, method: str, members: Sequence[int]) -> dict[int, Any]:
        """Results by member; the lost are left out. Called again where storage fails, as `build` is.

        Raises:
            D2PruneError: whatever a member raised.
        """
        ...

    def exchange(
        self, method: str, members: Sequence[int], inboxes: "Inboxes", *arguments: Any
    ) -> tuple["Inboxes", set[int]]:
        """Run one round: each member gets its inbox; what they send is returned by destination.

        Returns:
            The next inboxes (opaque messages), and the members that are lost. A message that can no
            longer be fetched makes its source count as lost.
        """
        ...

    def close(self) -> None:
        """End the members."""
        ...


Inboxes = dict[int, dict[int, Any]]
"""destination -> source -> message; what a message is, only its group knows."""


def name_of(unit: Any) -> str:
    """What messages call a unit."""
    return str(getattr(unit, "key", unit))


def named(error: D2PruneError, unit: Any) -> D2PruneError:
    """The same error with the unit's name in front; a user's mistake already names its file."""
    return error if isinstance(error, UserError) else type(error)(f"unit {name_of(unit)}: {error}")


def close(worker: Any) -> None:
    """End what a worker started, if it says how (`close`)."""
    if (end := getattr(worker, "close", None)) is not None:
        end()


def stop(worker: Any) -> None:
    """Have the threads that call a worker leave what they are at, if it says how (`stop`): nobody wants it any more."""
    if (end := getattr(worker, "stop", None)) is not None:
        end()


def tried(work: Callable[[], ResultT], name: str) -> ResultT:
    """What `work` returns, after as many tries as storage takes or is given.

    Raises:
        InfrastructureError: that of the last try.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return work()
        except InfrastructureError as error:
            log.warning("%s failed (%s); trying again", name, error)
            pause(attempt)
    return work()


def pause(attempt: int) -> None:
    """Wait before the next try: exponential, with jitter."""
    time.sleep(BACKOFF_S * 2**attempt * (0.5 + random.random() / 2))
