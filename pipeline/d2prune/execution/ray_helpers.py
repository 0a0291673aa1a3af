"""Helpers on Ray: an actor with a core each, on nodes without a GPU, hired by the actor that a worker lives in.

The node is named, not left to Ray's scheduler: without room elsewhere that would take the cores of
a GPU node, and the worker that belongs there would find none. An actor that finds its node full
waits there, unused; one whose node vanishes is lost. Ray ends an actor with the one that started it.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2prune.errors import D2PruneError, InfrastructureError
from d2prune.execution import metrics
from d2prune.execution.contract import Resources, ResultT, UnitT

# So that a helper's next unit is on its way while it is at one, and its result while it is at the next.
_AT_ONCE = 2


def workers_that_fit(nodes: Sequence[Mapping[str, Any]], resources: Resources) -> int:
    """How many such workers nodes (as `ray.nodes()` tells of them) hold: each is whole on one node."""
    wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
    shares = {kind: share for kind, share in wanted.items() if share}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(_times(node, kind, share) for kind, share in shares.items()) for node in alive)


def _times(node: Mapping[str, float], kind: str, share: float) -> int:
    amount = node.get(kind, 0)
    if kind == "GPU" and share < 1:
        # A share never lies on two GPUs: three of them hold nine workers of 0.3, not ten.
        return int(amount) * int(1 / share)
    return int(amount / share)


@dataclass(frozen=True)
class RayHelpers:
    """See `Helpers`.

    Attributes:
        connect: imports Ray.
        host: body of the actors.
        workers: what `Executor.map` runs the workers with that share the helpers.
    """

    connect: Callable[[], Any]
    host: type
    workers: Resources

    def places(self) -> Mapping[str, int]:
        """See `Helpers.places`: every worker's share of every node, rounded up; who comes late waits."""
        nodes = self.connect().nodes()
        workers = workers_that_fit(nodes, self.workers)
        if not self.workers.grows:
            workers = min(workers, self.workers.workers)
        helping = [node for node in nodes if node["Alive"] and not node["Resources"].get("GPU")]
        cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in helping}
        return {place: math.ceil(count / max(1, workers)) for place, count in cores.items() if count}

    def hire(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], place: str) -> "RayHelper":
        """See `Helpers.hire`."""
        ray = self.connect()
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place, soft=False)
        actor = ray.remote(num_cpus=1, max_concurrency=_AT_ONCE, scheduling_strategy=there)(self.host)
        return RayHelper(ray, actor.remote(), [ray.put(make_worker)])


class RayHelper:
    """See `Helper`."""

    def __init__(self, ray: Any, actor: Any, make_worker: list[Any]) -> None:
        self._ray, self._actor, self._make_worker = ray, actor, make_worker
        self._sent: deque[Any] = deque([actor.ready.remote()])
        self._here = False

    def here(self, timeout_s: float) -> bool:
        """See `Helper.here`."""
        if not self._here:
            found, _ = self._ray.wait([self._sent[0]], timeout=timeout_s)
            if found:
                self.receive()
                self._here = True
        return self._here

    def send(self, unit: Any) -> None:
        """See `Helper.send`."""
        self._sent.append(self._actor.run.remote(self._make_worker, unit))

    def receive(self) -> Any:
        """See `Helper.receive`; a defect of the worker arrives as the `RayTaskError` that it is."""
        try:
            done, result, counts = self._ray.get(self._sent.popleft())
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise InfrastructureError(f"helper lost: {' '.join(str(error).split())[:300]}") from error
        metrics.merge(counts)
        if not done:
            assert isinstance(result, D2PruneError)
            raise result
        return result

    def close(self) -> None:
        """See `Helper.close`."""
        self._ray.kill(self._actor)
