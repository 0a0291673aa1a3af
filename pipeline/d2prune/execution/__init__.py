"""Runs work on workers: on Ray actors, or in this process with the same semantics.

Two ways to work. `map`: independent units on a pool of workers. `group`: members that keep state
and send each other messages in rounds. A worker of `map` may have `helpers`: cores of machines that
have no GPU.

A worker is whatever `make_worker()` returns: a callable from unit to result, built where it runs,
so that models and compiled kernels are loaded once per worker. Units are independent, so a unit may
run again after a crash: its result is committed atomically and is the same. Retried, with back-off:
`InfrastructureError` and workers that die. Not retried: anything else a unit raises, since it would
be raised again. Ray appears in `on_ray.py`, `ray_group.py` and `jobs/` only.
"""

from d2prune.execution import metrics
from d2prune.execution.contract import Executor, Group, Helper, Helpers, Inboxes, Resources, tried
from d2prune.execution.guarded import Guarded
from d2prune.execution.in_process import InProcess, InProcessHelpers
from d2prune.execution.on_ray import OnRay

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
    "metrics",
    "tried",
]
