"""Run work on workers: Ray actors, or this process with the same semantics.

There are two ways to run work. `map` runs independent units on a pool of workers. `group` runs
members that keep state and exchange messages in rounds. A worker of `map` may have `helpers`: CPU
cores of machines without a GPU.

A worker is what `make_worker()` returns: a callable from unit to result. It is built in the process
that uses it, so models and compiled kernels are loaded once per worker. Units are independent and
commit their result atomically, so a unit may run again after a crash and gives the same result.

A unit runs again only if its worker was lost (`WorkerLostError`). An exception that a unit raises
ends the run: requests to storage were already retried where they were made
(`d2prune.store.retries`), and other errors would be raised again. Ray is imported in this package
and nowhere else.
"""

from d2prune.execution import metrics
from d2prune.execution.contract import Executor, Group, Helper, Helpers, Inboxes, Resources
from d2prune.execution.guarded import Guarded
from d2prune.execution.in_process import InProcess, InProcessHelpers
from d2prune.execution.on_ray import OnRay
from d2prune.execution.ray_address import check_address, check_cluster, is_own_machine

__all__ = [
    "Executor",
    "Group",
    "Guarded",
    "Helper",
    "Helpers",
    "InProcess",
    "InProcessHelpers",
    "Inboxes",
    "OnRay",
    "Resources",
    "check_address",
    "check_cluster",
    "is_own_machine",
    "metrics",
]
