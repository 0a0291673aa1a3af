"""Helpers on Ray: actors with one core each, on nodes without a GPU, started by a worker's process.

The node is chosen here and not by Ray's scheduler, which would use cores of a GPU node when other
nodes are full and so leave the worker that belongs there without any. An actor whose node is full
waits there, unused; one whose node vanishes is lost. Ray ends an actor together with the process
that started it.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2prune.errors import D2PruneError, WorkerLostError
from d2prune.execution import metrics
from d2prune.execution.contract import Resources, ResultT, UnitT
from d2prune.execution.ray_worker import WorkerActor, describe_error

# Two, so that the next unit travels to a helper, and the last result back, while it works.
_UNITS_IN_FLIGHT = 2

Nodes = Sequence[Mapping[str, Any]]
"""Nodes of a cluster, as `ray.nodes()` returns them."""


def count_fitting_workers(nodes: Nodes, resources: Resources) -> int:
    """How many such workers the nodes can hold. A worker never spans two nodes."""
    wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
    shares = {kind: share for kind, share in wanted.items() if share}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(_count_shares(node, kind, share) for kind, share in shares.items()) for node in alive)


def _count_shares(node: Mapping[str, float], kind: str, share: float) -> int:
    amount = node.get(kind, 0)
    if kind == "GPU" and share < 1:
        # A share never spans two GPUs: three GPUs hold nine workers of 0.3, not ten.
        return int(amount) * int(1 / share)
    return int(amount / share)


def share_helpers(nodes: Nodes, workers: Resources) -> dict[str, int]:
    """Divide the cores of nodes without a GPU among the workers.

    Args:
        nodes: of the cluster.
        workers: `resources` of the workers that share the helpers.

    Returns:
        Node id -> helpers per worker, rounded up; the last workers to ask wait for a core.
    """
    n_workers = count_fitting_workers(nodes, workers)
    if not workers.grows:
        n_workers = min(n_workers, workers.workers)
    helping = [node for node in nodes if node["Alive"] and not node["Resources"].get("GPU")]
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in helping}
    return {node: math.ceil(count / max(1, n_workers)) for node, count in cores.items() if count}


@dataclass(frozen=True)
class RayHelpers:
    """Access to helpers for the workers that `Executor.map` runs with `workers`. See `Helpers`."""

    workers: Resources

    def nodes(self) -> Mapping[str, int]:
        """See `Helpers.nodes`."""
        import ray

        return share_helpers(ray.nodes(), self.workers)

    def start(self, make_worker: Callable[[], Callable[[UnitT], ResultT]], node: str) -> "RayHelper":
        """See `Helpers.start`."""
        import ray

        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        actor_class = ray.remote(num_cpus=1, max_concurrency=_UNITS_IN_FLIGHT, scheduling_strategy=affinity)
        return RayHelper(ray, actor_class(WorkerActor).remote(), [ray.put(make_worker)])


class RayHelper:
    """A helper that is a Ray actor. See `Helper` for the methods."""

    def __init__(self, ray: Any, actor: Any, make_worker: list[Any]) -> None:
        self._ray, self._actor, self._make_worker = ray, actor, make_worker
        self._calls: deque[Any] = deque([actor.ready.remote()])
        self._started = False

    def wait_started(self, timeout_s: float) -> bool:
        """See `Helper.wait_started`."""
        if not self._started:
            found, _ = self._ray.wait([self._calls[0]], timeout=timeout_s)
            if found:
                self.result()
                self._started = True
        return self._started

    def submit(self, unit: Any) -> None:
        """See `Helper.submit`."""
        self._calls.append(self._actor.run.remote(self._make_worker, unit))

    def result(self) -> Any:
        """See `Helper.result`; a bug in the worker is raised as Ray's `RayTaskError`."""
        try:
            done, result, counts = self._ray.get(self._calls.popleft())
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(f"helper lost: {describe_error(error)}") from error
        metrics.merge(counts)
        if not done:
            assert isinstance(result, D2PruneError)
            raise result
        return result

    def close(self) -> None:
        """See `Helper.close`."""
        self._ray.kill(self._actor)
