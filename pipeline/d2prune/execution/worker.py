"""What every executor does with a worker: name its unit in errors, interrupt it, close it."""

import copy
from typing import Any

from d2prune.errors import D2PruneError, UserError


def unit_name(unit: Any) -> str:
    """The name of a unit in messages: its key, if it has one."""
    return str(getattr(unit, "key", unit))


def add_unit_name(error: D2PruneError, unit: Any) -> D2PruneError:
    """The same error with the unit's name in front, except user errors, which name their file."""
    if isinstance(error, UserError):
        return error
    named = copy.copy(error)
    message, *more = error.args
    named.args = (f"unit {unit_name(unit)}: {message}", *more)
    return named


def interrupt_worker(worker: Any) -> None:
    """Call the worker's `stop`, if it has one: threads in it return as soon as they can."""
    if (stop := getattr(worker, "stop", None)) is not None:
        stop()


def close_worker(worker: Any) -> None:
    """Call the worker's `close`, if it has one: it ends the processes and threads it started."""
    if (close := getattr(worker, "close", None)) is not None:
        close()
