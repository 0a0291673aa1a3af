"""Mutual exclusion on stores without conditional puts: Lamport's bakery algorithm over objects.

    <door>/drawing-<owner>       this owner is drawing a number
    <door>/<number>-<owner>      this owner's number

A process announces that it draws a number, draws one above all that it sees, and enters when no
other is drawing and no other has a lower number. The store must only guarantee that a listing shows
every put that has returned. A process that sees a lower number gives up and does not wait: the
owner of that number enters, or has found the lease taken.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from d2prune import store

_POLL_S = 0.05


@contextlib.contextmanager
def critical_section(
    door: str, owner: str, ttl_s: float, read_clock: Callable[[], float]
) -> Iterator[Callable[[], bool]]:
    """Try to enter; the block then asks whether it may act.

    Args:
        door: URL of a folder for the objects of the algorithm.
        owner: unique to this process and attempt.
        ttl_s: age after which the owner of an object is considered dead.
        read_clock: the store's time.

    Yields:
        A function: whether this process is inside alone. Call it just before acting, since it
        becomes False when half of `ttl_s` has passed: others may soon consider this process dead.
    """
    drawing = store.join(door, f"drawing-{owner}")
    store.write_bytes(drawing, b"", store.Sync.NEVER)
    number = max((_read_number(file.url) for file in store.list_files(door)), default=0) + 1
    ticket = store.join(door, f"{number:08d}-{owner}")
    start = time.monotonic()
    store.write_bytes(ticket, b"", store.Sync.NEVER)
    store.delete([drawing])
    try:
        entered = _wait_for_turn(door, ticket, owner, ttl_s, read_clock)
        yield lambda: entered and time.monotonic() - start <= ttl_s / 2
    finally:
        store.delete([ticket])


def _wait_for_turn(door: str, ticket: str, owner: str, ttl_s: float, read_clock: Callable[[], float]) -> bool:
    """Wait while others draw; False as soon as one has a lower number."""
    while others := _list_others(door, owner, ttl_s, read_clock):
        if any(_read_number(url) and _name(url) < _name(ticket) for url in others):
            return False
        if not any(_read_number(url) == 0 for url in others):
            break
        time.sleep(_POLL_S)
    return True


def _list_others(door: str, owner: str, ttl_s: float, read_clock: Callable[[], float]) -> list[str]:
    """Objects of other owners; those of dead owners are deleted."""
    others = [file.url for file in store.list_files(door) if not file.url.endswith(owner)]
    if not others:
        return []
    now = read_clock()
    present = []
    for url in others:
        with contextlib.suppress(FileNotFoundError):
            if now - store.modified(url) <= ttl_s:
                present.append(url)
            else:
                store.delete([url])
    return present


def _read_number(url: str) -> int:
    """The number on a ticket; 0 for an owner that is still drawing."""
    first = _name(url).split("-")[0]
    return int(first) if first.isdecimal() else 0


def _name(url: str) -> str:
    return url.rsplit("/", 1)[-1]
