"""Ray actors as workers; with `ray_group` the only module that imports Ray."""

import collections
import contextlib
import dataclasses
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2prune.errors import D2PruneError, InfrastructureError, UserError
from d2prune.execution import metrics
from d2prune.execution.contract import ATTEMPTS, Resources, ResultT, UnitT, name_of, named, pause
from d2prune.execution.ray_group import RayGroup, fetch
from d2prune.execution.ray_helpers import RayHelpers, workers_that_fit

log = logging.getLogger(__name__)

# How often the cluster is asked whether it has grown, and how many actors may wait for room.
_GROW_EVERY_S = 2.0
_MAX_STARTING = 64
_SILENCE_S = 60.0


def _import_ray() -> Any:
    import ray

    return ray


def _send_metrics_to_ray() -> None:
    """Let this process's counters be counters of its cluster too."""
    from ray.util.metrics import Counter

    made: dict[str, Any] = {}

    def count(name: str, amount: float, labels: Mapping[str, str]) -> None:
        if name not in made:
            made[name] = Counter(name, description=metrics.DESCRIPTIONS[name], tag_keys=tuple(sorted(labels)))
        made[name].inc(amount, tags=dict(labels))

    metrics.send_to(count)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep who handles SIGTERM: `ray.init` puts handlers of its own there, after which a stopped run says nothing."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Host:
    """The Ray actor's body: builds the worker at the first unit and hands errors back as values.

    As values, an error keeps its own type and text; raised through Ray it would arrive as a
    traceback. `make_worker` is fetched when it is needed: if it cannot be unpickled here, that is a
    unit's error and not a worker that dies.
    """

    def __init__(self) -> None:
        self._worker: Callable[[Any], Any] | None = None
        self._building = threading.Lock()
        _send_metrics_to_ray()

    def ready(self) -> tuple[bool, None, metrics.Counts]:
        return True, None, {}

    def run(self, make_worker: list[Any], unit: Any) -> tuple[bool, Any, metrics.Counts]:
        try:
            with self._building:
                if self._worker is None:
                    self._worker = fetch(make_worker)()
            return True, self._worker(unit), metrics.drain()
        except D2PruneError as error:
            return False, error, metrics.drain()


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
            here = str(Path(__file__).resolve().parents[2])
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        try:
            import ray
        except ImportError as error:
            raise UserError(f"ray cannot be imported ({error}); install it or pass --no-ray") from error
        self._ray = ray
        self._started = not ray.is_initialized()
        if not self._started:
            _send_metrics_to_ray()
            return
        local = address is None and "RAY_ADDRESS" not in os.environ
        try:
            with _own_sigterm():
                ray.init(
                    # "local", lest Ray joins whatever cluster `ray start` once left on this machine.
                    address="local" if local else address,
                    num_cpus=num_cpus if local else None,
                    include_dashboard=False if local else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"ray.address {address!r}: no cluster answers there: {' '.join(str(error).split())}"
            ) from error
        except Exception as error:
            # Ray has no class of its own for it: a node that did not come up in 30 s raises a bare Exception.
            if type(error) is not Exception:
                raise
            raise InfrastructureError(f"a local Ray did not start: {' '.join(str(error).split())}") from error
        _send_metrics_to_ray()

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`: `at_once` units in flight per actor; actors join as the cluster has room for them."""
        pool = _Pool(self._ray, make_worker, resources, lambda: self._room(resources))
        try:
            yield from pool.results(units)
        finally:
            pool.close()

    def _room(self, resources: Resources) -> int:
        """How many such workers the cluster as it is now can hold, and one at least."""
        return max(1, workers_that_fit(self._ray.nodes(), resources))

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> RayGroup:
        """See `Executor.group`."""
        # All members live at once. They ask for half of what they use, less where the cluster is
        # small: when a machine vanishes its members find room beside others instead of waiting for
        # a new one. Ray fills machines half before it spreads, so on a whole cluster each still has
        # a core of its own.
        share = resources.num_cpus / 2 * min(1.0, self._room(resources) / size)
        share = math.floor(share) if share > 1 else math.floor(share * 1000) / 1000
        return RayGroup(self._ray, make_member, size, dataclasses.replace(resources, num_cpus=share))

    def cpus(self) -> int:
        """See `Executor.cpus`."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def cpus_per_node(self) -> int:
        """See `Executor.cpus_per_node`."""
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(max(nodes, default=1)))

    def cpus_per_gpu(self) -> float:
        """See `Executor.cpus_per_gpu`."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return min((node.get("CPU", 0) / node["GPU"] for node in nodes if node.get("GPU")), default=0)

    def worker_cores(self, wanted: float) -> float:
        """See `Executor.worker_cores`."""
        return wanted

    def helpers(self, resources: Resources) -> RayHelpers:
        """See `Executor.helpers`: a core each, on nodes without a GPU."""
        return RayHelpers(_import_ray, _Host, resources)

    def close(self) -> None:
        """Shut a local Ray down, or leave the cluster."""
        metrics.send_to(None)
        if self._started:
            self._ray.shutdown()


class _Pool:
    """Actors of one kind and the units they have in hand.

    An actor is starting (its `ready` is out), idle, or busy. Only those that said `ready` get
    units: one that was lost with its machine may wait for room for ever, and must not hold a unit
        while it does. Actors that wait for room are
    what an autoscaler sees as demand; so that it is not asked for all at once, and Ray not kept
    busy with placing them, at most `_MAX_STARTING` wait. Ray's default placement is kept: it fills
    machines half, then spreads, and leaves GPU machines to those who ask for GPUs, which its SPREAD does not.
    """

    def __init__(
        self, ray: Any, make_worker: Callable[[], Any], resources: Resources, room: Callable[[], int]
    ) -> None:
        options = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "max_restarts": -1}
        if resources.at_once > 1:
            options["max_concurrency"] = resources.at_once
        self._ray, self._resources, self._room = ray, resources, room
        self._host = ray.remote(**options)(_Host)
        self._shared = [ray.put(make_worker)]
        self._actors: list[Any] = []
        self._running: dict[Any, tuple[int, Any, int]] = {}
        self._starting: dict[int, int] = {}
        self._idle: list[int] = []
        self._in_hand: collections.Counter[int] = collections.Counter()
        self._grew = -math.inf
        self._heard = time.monotonic()

    def results(self, units: Sequence[Any]) -> Iterator[Any]:
        """The result of each unit as it finishes; see `Executor.map` for what is raised."""
        waiting = collections.deque((unit, 0) for unit in units)
        unfinished = len(units)
        while unfinished:
            self._grow(unfinished)
            found, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_GROW_EVERY_S)
            if not found:
                self._complain(len(waiting))
                continue
            self._heard = time.monotonic()
            index, unit, attempt = self._running.pop(found[0])
            state, result = self._outcome(found[0])
            if unit is None:
                self._started(index, state, result)
            else:
                self._in_hand[index] -= 1
                if state == "lost":
                    self._start(index)
                elif self._in_hand[index] == 0 and index not in self._starting:
                    self._idle.append(index)
                if state == "done":
                    unfinished -= 1
                    yield result
                elif isinstance(result, InfrastructureError) and attempt + 1 < ATTEMPTS:
                    log.warning("unit %s failed (%s); trying again", name_of(unit), result)
                    if state != "lost":
                        pause(attempt)
                    waiting.appendleft((unit, attempt + 1))
                else:
                    raise named(result, unit)
            self._hand_out(waiting, index)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _outcome(self, reference: Any) -> tuple[str, Any]:
        """`done` and the result, `error` or `lost` and the error."""
        try:
            done, result, counts = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            # A defect in a worker: its own traceback is the best message.
            raise
        except self._ray.exceptions.RayError as error:
            return "lost", InfrastructureError(f"worker lost: {' '.join(str(error).split())[:300]}")
        metrics.merge(counts)
        return ("done" if done else "error"), result

    def _grow(self, unfinished: int) -> None:
        """Start actors, as many as are wanted and may wait for room."""
        now = time.monotonic()
        if now - self._grew < _GROW_EVERY_S and len(self._starting) >= _MAX_STARTING:
            return
        wanted = self._resources.workers
        if self._resources.grows:
            if now - self._grew < _GROW_EVERY_S:
                return
            wanted = self._room()
        self._grew = now
        while len(self._actors) < min(wanted, unfinished) and len(self._starting) < _MAX_STARTING:
            self._actors.append(self._host.remote())
            self._start(len(self._actors) - 1)

    def _start(self, index: int) -> None:
        """Wait for an actor, new or lost, to say that it is there."""
        if index not in self._starting:
            self._starting[index] = 0
            if index in self._idle:
                self._idle.remove(index)
            self._running[self._actors[index].ready.remote()] = (index, None, 0)

    def _started(self, index: int, state: str, error: Any) -> None:
        if state == "done":
            del self._starting[index]
            if self._in_hand[index] == 0:
                self._idle.append(index)
            return
        self._starting[index] += 1
        if self._starting[index] >= ATTEMPTS:
            raise error
        self._running[self._actors[index].ready.remote()] = (index, None, 0)

    def _hand_out(self, waiting: collections.deque[tuple[Any, int]], last: int) -> None:
        """Give units to idle actors, then a second one to the actor that was heard last."""
        while waiting and self._idle:
            self._give(waiting, self._idle.pop())
        side_by_side = len(self._actors) - len(self._starting)
        # Near the end a unit that waits behind another would be better off with an idle actor.
        while (
            last not in self._starting
            and 0 < self._in_hand[last] < self._resources.at_once
            and len(waiting) >= side_by_side
        ):
            self._give(waiting, last)

    def _give(self, waiting: collections.deque[tuple[Any, int]], index: int) -> None:
        unit, attempt = waiting.popleft()
        self._in_hand[index] += 1
        self._running[self._actors[index].run.remote(self._shared, unit)] = (index, unit, attempt)

    def _complain(self, waiting: int) -> None:
        """Say why nothing happens, where nobody has a unit in hand."""
        if not sum(self._in_hand.values()) and time.monotonic() - self._heard > _SILENCE_S:
            wanted = f"{self._resources.num_cpus:g} CPU, {self._resources.num_gpus:g} GPU"
            log.warning("%d units wait: the cluster has no room for a worker (%s each)", waiting, wanted)
            self._heard = time.monotonic()
