"""Rebuild the units whose files turn out to be damaged while a run reads them, without being asked."""

import logging
from collections.abc import Callable
from typing import TypeVar

from d2prune import store
from d2prune.errors import DamagedFileError

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


def rebuild_damaged(attempt: Callable[[], ResultT], guard: Callable[[], None]) -> ResultT:
    """Call `attempt`, again after each damaged file that it finds: without a receipt the unit is rebuilt.

    Args:
        attempt: runs all units that are not complete.
        guard: raises if this process may not write.

    Raises:
        DamagedFileError: a unit is damaged again after it was rebuilt.
    """
    rebuilt: set[str] = set()
    while True:
        try:
            return attempt()
        except DamagedFileError as error:
            if error.receipt in rebuilt:
                raise
            guard()
            log.warning("%s; rebuilding the unit", error.args[0])
            store.delete([error.receipt])
            rebuilt.add(error.receipt)
