"""The executor on a Ray cluster, local or remote."""

import contextlib
import dataclasses
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from d2prune.errors import InfrastructureError, UserError
from d2prune.execution import metrics
from d2prune.execution.contract import Resources, ResultT, UnitT
from d2prune.execution.ray_address import find_head, name_address, wait_for_head
from d2prune.execution.ray_group import RayGroup
from d2prune.execution.ray_helpers import RayHelpers, count_fitting_workers
from d2prune.execution.ray_pool import ActorPool
from d2prune.execution.ray_worker import export_metrics
from d2prune.extras import require


class OnRay:
    """Pools and groups of Ray actors. Starts a local Ray on loopback unless given an address."""

    def __init__(self, address: str | None = None, num_cpus: int | None = None) -> None:
        """Connect to a cluster, or start a local Ray.

        Args:
            address: `auto`, `ray://host:port`, ...; None: a local Ray that ends with this process.
            num_cpus: logical cores of a local Ray; default: those of the machine.

        Raises:
            UserError: Ray is not installed, or no cluster answers at the address.
            InfrastructureError: a local Ray did not start.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local = address is None and "RAY_ADDRESS" not in os.environ
        if local:
            _prepare_local_environment()
        require("ray", "several workers", otherwise="use one worker (run --no-ray)")
        try:
            import ray
        except ImportError as error:
            raise UserError(f"ray cannot be imported ({error}); install it or pass --no-ray") from error
        self._ray = ray
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            _start_ray(ray, address, num_cpus, local)
        export_metrics()

    def map(
        self,
        make_worker: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        resources: Resources,
    ) -> Iterator[ResultT]:
        """See `Executor.map`. Actors are added as the cluster has room for them."""
        pool = ActorPool(self._ray, make_worker, resources, lambda: self._count_fitting(resources))
        try:
            yield from pool.run(units)
        finally:
            pool.close()

    def _count_fitting(self, resources: Resources) -> int:
        """How many such workers the cluster can hold now, at least 1."""
        return max(1, count_fitting_workers(self._ray.nodes(), resources))

    def group(self, make_member: Callable[[int], Any], size: int, resources: Resources) -> RayGroup:
        """See `Executor.group`."""
        # All members run at the same time. Each requests half of the cores it uses, less on a small
        # cluster: if a node vanishes, its members then fit beside others and do not wait for a new
        # node. Ray fills nodes to half before it spreads, so with all nodes up each member still
        # has a core to itself.
        share = resources.num_cpus / 2 * min(1.0, self._count_fitting(resources) / size)
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
        """See `Executor.helpers`: actors with one core each, on nodes without a GPU."""
        return RayHelpers(resources)

    def close(self) -> None:
        """Shut down a local Ray, or disconnect from the cluster."""
        metrics.send_to(None)
        if self._started_ray:
            self._ray.shutdown()


def _prepare_local_environment() -> None:
    # Makes the node's address 127.0.0.1, so that no port of a local Ray faces the network.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Workers must import the package that this driver runs, installed or not.
    source_root = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source_root, os.environ.get("PYTHONPATH")]))


def _start_ray(ray: Any, address: str | None, num_cpus: int | None, local: bool) -> None:
    shown = name_address(address)
    try:
        if not local and (head := find_head(address)):
            wait_for_head(*head, shown)
        with _keep_sigterm_handler():
            ray.init(
                # "local", because None would join a cluster that `ray start` left on this machine.
                address="local" if local else address,
                num_cpus=num_cpus if local else None,
                include_dashboard=False if local else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if local and isinstance(error, RuntimeError):
            raise
        raise UserError(f"{shown}: no cluster answers there: {' '.join(str(error).split())}") from error
    except Exception as error:
        # Ray raises a bare Exception if a node does not come up within 30 s.
        if type(error) is not Exception:
            raise
        raise InfrastructureError(f"a local Ray did not start: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM. `ray.init` installs one that exits without a message."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
