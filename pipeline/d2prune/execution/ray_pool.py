"""A pool of Ray actors that run independent units. The pool may grow with its cluster."""

import collections
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from d2prune.errors import D2PruneError, WorkerLostError
from d2prune.execution import metrics
from d2prune.execution.contract import Resources
from d2prune.execution.ray_worker import WorkerActor, describe_error
from d2prune.execution.worker import add_unit_name, unit_name

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 4
"""Attempts at a unit whose worker is lost each time, since the unit may be what kills it."""

# How often to check whether the cluster has grown.
_GROW_INTERVAL_S = 2.0
# Actors that may wait for resources at a time.
_MAX_STARTING = 64
# Seconds without any result after which a warning reports that the cluster has no room.
_STALL_S = 60.0


class _Call(NamedTuple):
    """A pending call of an actor: a unit, or its start if `unit` is None."""

    actor: int
    unit: Any = None
    attempt: int = 1


_Queue = collections.deque[tuple[Any, int]]
"""Units that no actor has, each with the number of its next attempt."""


class ActorPool:
    """Actors of one kind and the units in flight on them.

    An actor is starting (its call of `ready` is pending), idle or busy. Only an actor that has
    returned from `ready` gets units: one that was lost with its node may wait for resources
    indefinitely and must not hold a unit meanwhile. Actors that wait for resources are the demand
    that an autoscaler sees. At most `_MAX_STARTING` wait at a time, which limits the load on Ray's
    scheduler. Ray's default placement is kept: it fills each node to half before it spreads, and
    keeps actors without a GPU away from GPU nodes, which its SPREAD strategy does not.
    """

    def __init__(
        self,
        ray: Any,
        make_worker: Callable[[], Any],
        resources: Resources,
        count_fitting: Callable[[], int],
    ) -> None:
        """Start no actor yet; `count_fitting` returns how many workers the cluster can hold now."""
        options = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus, "max_restarts": -1}
        if resources.units_in_flight > 1:
            options["max_concurrency"] = resources.units_in_flight
        self._ray, self._resources, self._count_fitting = ray, resources, count_fitting
        self._actor_class = ray.remote(**options)(WorkerActor)
        self._make_worker = [ray.put(make_worker)]
        self._actors: list[Any] = []
        self._calls: dict[Any, _Call] = {}
        self._starting: dict[int, int] = {}  # Actor -> failed starts.
        self._idle: list[int] = []
        self._in_flight: collections.Counter[int] = collections.Counter()
        self._last_growth = -math.inf
        self._last_answer = time.monotonic()

    def run(self, units: Sequence[Any]) -> Iterator[Any]:
        """Yield the result of each unit as it finishes; raises what `Executor.map` does."""
        queue: _Queue = collections.deque((unit, 1) for unit in units)
        unfinished = len(units)
        while unfinished:
            self._grow(unfinished)
            found, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_GROW_INTERVAL_S)
            if not found:
                self._warn_if_stalled(len(queue))
                continue
            self._last_answer = time.monotonic()
            call = self._calls.pop(found[0])
            result, error, lost = self._fetch_outcome(found[0])
            if call.unit is None:
                self._finish_start(call.actor, error)
            else:
                self._release(call.actor, lost)
                if error is None:
                    unfinished -= 1
                    yield result
                elif isinstance(error, WorkerLostError) and call.attempt < MAX_ATTEMPTS:
                    log.warning("unit %s: %s; running it again", unit_name(call.unit), error)
                    queue.appendleft((call.unit, call.attempt + 1))
                else:
                    raise add_unit_name(error, call.unit)
            self._assign(queue, call.actor)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _fetch_outcome(self, reference: Any) -> tuple[Any, D2PruneError | None, bool]:
        """The result or the error of a call, and whether its actor was lost."""
        try:
            done, value, counts = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError:
            # A bug in a worker: its own traceback is the best message.
            raise
        except self._ray.exceptions.RayError as error:
            metrics.add(metrics.WORKERS_LOST)
            return None, WorkerLostError(f"worker lost: {describe_error(error)}"), True
        metrics.merge(counts)
        return (value, None, False) if done else (None, value, False)

    def _grow(self, unfinished: int) -> None:
        """Start the actors that are missing, as far as they may wait for resources."""
        now = time.monotonic()
        checked_recently = now - self._last_growth < _GROW_INTERVAL_S
        if checked_recently and (self._resources.grows or len(self._starting) >= _MAX_STARTING):
            return
        wanted = self._count_fitting() if self._resources.grows else self._resources.workers
        self._last_growth = now
        while len(self._actors) < min(wanted, unfinished) and len(self._starting) < _MAX_STARTING:
            self._actors.append(self._actor_class.remote())
            self._await_start(len(self._actors) - 1)

    def _await_start(self, actor: int) -> None:
        """Give a new or lost actor no units until it answers. Ray restarts lost ones."""
        if actor not in self._starting:
            self._starting[actor] = 0
            if actor in self._idle:
                self._idle.remove(actor)
            self._calls[self._actors[actor].ready.remote()] = _Call(actor)

    def _finish_start(self, actor: int, error: D2PruneError | None) -> None:
        if error is None:
            del self._starting[actor]
            if self._in_flight[actor] == 0:
                self._idle.append(actor)
            return
        self._starting[actor] += 1
        if self._starting[actor] >= MAX_ATTEMPTS:
            raise error
        self._calls[self._actors[actor].ready.remote()] = _Call(actor)

    def _release(self, actor: int, lost: bool) -> None:
        """Record that a unit of an actor has ended."""
        self._in_flight[actor] -= 1
        if lost:
            self._await_start(actor)
        elif self._in_flight[actor] == 0 and actor not in self._starting:
            self._idle.append(actor)

    def _assign(self, queue: _Queue, answered: int) -> None:
        """Give units to idle actors, then another one to the actor that answered last."""
        while queue and self._idle:
            self._submit(queue, self._idle.pop())
        running = len(self._actors) - len(self._starting)
        # Towards the end, a unit queued behind another would start sooner on an idle actor.
        while (
            answered not in self._starting
            and 0 < self._in_flight[answered] < self._resources.units_in_flight
            and len(queue) >= running
        ):
            self._submit(queue, answered)

    def _submit(self, queue: _Queue, actor: int) -> None:
        unit, attempt = queue.popleft()
        self._in_flight[actor] += 1
        reference = self._actors[actor].run.remote(self._make_worker, unit)
        self._calls[reference] = _Call(actor, unit, attempt)

    def _warn_if_stalled(self, n_queued: int) -> None:
        """Log why nothing happens, if no actor has had a unit for a while."""
        if not sum(self._in_flight.values()) and time.monotonic() - self._last_answer > _STALL_S:
            wanted = f"{self._resources.num_cpus:g} CPU, {self._resources.num_gpus:g} GPU"
            log.warning("%d units wait: the cluster has no room for a worker (%s each)", n_queued, wanted)
            self._last_answer = time.monotonic()
