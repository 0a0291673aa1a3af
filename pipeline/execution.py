"""Runs units of work on workers: a pool of Ray actors, or one worker in this process with the same semantics.

A worker is whatever `make_worker()` returns: a callable from unit to result, built where it runs, so that models and
compiled kernels are loaded once per worker. Units are independent, so a unit may run again after a crash: its result is
committed atomically and is the same. Retried, with back-off: `InfrastructureError` and workers that die. Not retried:
anything else a unit raises, since it would be raised again. Ray appears in this file and in `jobs/` only.
"""

import collections
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipeline.errors import D2PruneError, InfrastructureError, UserError

log = logging.getLogger(__name__)

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")

ATTEMPTS = 4
_BACKOFF_S = 0.5


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage takes. Never part of a fingerprint.

    Attributes:
        workers: how many work side by side.
        num_cpus: cores each holds.
        num_gpus: GPUs each holds; fractions share one.
    """

    workers: int = 1
    num_cpus: float = 1
    num_gpus: float = 0


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

    def cpus(self) -> int:
        """Cores that units may use together."""
        ...

    def cpus_per_node(self) -> int:
        """Cores of the largest machine."""
        ...

    def close(self) -> None:
        """Stop what this executor started."""
        ...


def _name(unit: Any) -> str:
    return str(getattr(unit, "key", unit))


def _named(error: D2PruneError, unit: Any) -> D2PruneError:
    """The same error with the unit's name in front; a user's mistake already names its file."""
    return error if isinstance(error, UserError) else type(error)(f"unit {_name(unit)}: {error}")


def _pause(attempt: int) -> None:
    time.sleep(_BACKOFF_S * 2**attempt * (0.5 + random.random() / 2))


class InProcess:
    """One worker, in this process: where Ray is not installed, in notebooks, in most tests."""

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`; `resources` is not used."""
        worker = make_worker() if units else None
        for unit in units:
            assert worker is not None
            for attempt in range(ATTEMPTS):
                try:
                    result = worker(unit)
                    break
                except InfrastructureError as error:
                    if attempt + 1 == ATTEMPTS:
                        raise _named(error, unit) from error
                    log.warning("unit %s failed (%s); trying again", _name(unit), error)
                    _pause(attempt)
                except D2PruneError as error:
                    raise _named(error, unit) from error
            yield result

    def cpus(self) -> int:
        """See `Executor.cpus`."""
        return os.cpu_count() or 1

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        return self.cpus()

    def close(self) -> None:
        """Nothing to stop."""


class _Host:
    """The Ray actor's body: builds the worker at the first unit and hands errors back as values.

    As values, an error keeps its own type and text; raised through Ray it would arrive as a traceback.
    """

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
        self._make_worker = make_worker
        self._worker: Callable[[Any], Any] | None = None

    def ready(self) -> bool:
        return True

    def run(self, unit: Any) -> tuple[bool, Any]:
        try:
            if self._worker is None:
                self._worker = self._make_worker()
            return True, self._worker(unit)
        except D2PruneError as error:
            return False, error


class OnRay:
    """A pool of actors on a Ray cluster; starts a local one on loopback unless an address is given."""

    def __init__(self, address: str | None = None, num_cpus: int | None = None) -> None:
        """Connect or start.

        Args:
            address: `auto`, `ray://host:port`, ...; None starts a local Ray that ends with this process.
            num_cpus: logical cores of a local Ray; default those of the machine.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address is None and "RAY_ADDRESS" not in os.environ:
            # Makes the node's address 127.0.0.1, so that no listener of a local Ray faces the network.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            # Workers must import the package this driver runs, installed or not.
            here = str(Path(__file__).resolve().parent.parent)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        try:
            import ray
        except ImportError as error:
            raise UserError(f"ray cannot be imported ({error}); install it or pass --no-ray") from error
        self._ray = ray
        self._started = not ray.is_initialized()
        if not self._started:
            return
        local = address is None and "RAY_ADDRESS" not in os.environ
        try:
            ray.init(
                address=address,
                num_cpus=num_cpus if local else None,
                include_dashboard=False if local else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"ray.address {address!r}: no cluster answers there: {' '.join(str(error).split())}"
            ) from error

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`: one unit in flight per actor; an actor joins when its node has room for it."""
        ray = self._ray
        waiting = collections.deque((unit, 0) for unit in units)
        options = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "max_restarts": -1}
        host = ray.remote(**options)(_Host)
        actors = [host.remote(make_worker) for _ in range(min(resources.workers, len(units)))]
        running: dict[Any, tuple[Any, UnitT | None, int]] = {actor.ready.remote(): (actor, None, 0) for actor in actors}
        unfinished = len(units)
        try:
            while unfinished:
                (reference,), _ = ray.wait(list(running), num_returns=1)
                actor, unit, attempt = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError:
                    # A defect in a worker: its own traceback is the best message.
                    raise
                except ray.exceptions.RayError as error:
                    outcome = (False, InfrastructureError(f"worker lost: {' '.join(str(error).split())[:300]}"))
                if unit is not None:
                    done, result = outcome
                    if done:
                        unfinished -= 1
                        yield result
                    elif isinstance(result, InfrastructureError) and attempt + 1 < ATTEMPTS:
                        log.warning("unit %s failed (%s); trying again", _name(unit), result)
                        _pause(attempt)
                        waiting.appendleft((unit, attempt + 1))
                    else:
                        raise _named(result, unit)
                if waiting:
                    unit, attempt = waiting.popleft()
                    running[actor.run.remote(unit)] = (actor, unit, attempt)
        finally:
            for actor in actors:
                ray.kill(actor)

    def cpus(self) -> int:
        """See `Executor.cpus`."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(max(nodes, default=1)))

    def close(self) -> None:
        """Shut a local Ray down, or leave the cluster."""
        if self._started:
            self._ray.shutdown()
