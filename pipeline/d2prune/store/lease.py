"""One run at a time on a work_dir or an output: a lease with an owner, an expiry and a fencing token.

    work_dir/.lease/<token>.json     who holds it, rewritten at every beat; `released` at the end
    work_dir/.lease/door/...         only where the store ignores conditions: who is entering, for a moment

Taking the lease is making the object of the next token, which exactly one run can: by a conditional
put, or, where the store does not honour one, by Lamport's bakery over plain objects. Tokens only
grow. A holder rewrites its object every few seconds; a run that finds a higher token, or another
owner in its own, has lost the lease and stops before its next commit. An object that is not
rewritten for `TTL_S` is stale and its lease is taken over; of a run that died on this machine that
is known at once. Ages are differences of the store's own times: no two clocks are compared.

Losing a race here costs work, never bytes: units are deterministic and every write is atomic.
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import BusyError, InfrastructureError

log = logging.getLogger(__name__)

FOLDER = ".lease"
RENEW_S = 5.0
TTL_S = 60.0
"""Twelve beats: a driver whose interpreter a compiled kernel holds up, or a store that is away, is not yet dead."""

_CLOCK_TRIES = 5


@dataclass(frozen=True)
class Holder:
    """What a lease object says.

    Attributes:
        token: the fencing token, also its name.
        owner: unique to this taking of the lease.
        host: name of the machine, for people.
        pid: process there.
        space: identity of the machine's boot and process namespace, `""` where unknown: in it, a
            pid has a meaning.
        started: start of that process in the machine's ticks; a pid may be used again.
        ttl_s: seconds without a beat after which it is stale.
        beat: counts rewritings.
        released: the run has ended.
    """

    token: int
    owner: str
    host: str
    pid: int
    space: str
    started: int
    ttl_s: float
    beat: int = 0
    released: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}"

    def alive(self) -> bool | None:
        """Whether its process runs; None where that cannot be seen from here."""
        if not self.space or self.space != _space():
            return None
        return _started(self.pid) == self.started


class Lease:
    """A lease that is held: a thread renews it until `release`."""

    def __init__(self, folder: str, holder: Holder, renew_s: float, what: str) -> None:
        self._folder, self._holder, self._renew_s, self._what = folder, holder, renew_s, what
        self._lost: str | None = None
        self._renewed = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier holder."""
        return self._holder.token

    def check(self) -> None:
        """Return while the lease is held; before a commit.

        Raises:
            BusyError: another run has taken it over.
            InfrastructureError: the store cannot be asked, and the lease may have expired.
        """
        if self._lost is None and time.monotonic() - self._renewed > self._holder.ttl_s / 2:
            self._renew()
        if self._lost is not None:
            raise BusyError(self._lost)

    def release(self, leave: bool = True) -> None:
        """Let the next run have it, and leave word of that or nothing; a lease that was lost is left alone."""
        self._over.set()
        self._thread.join()
        if self._lost is None:
            with contextlib.suppress(InfrastructureError):
                if leave:
                    _write(self._folder, dataclasses.replace(self._holder, released=True))
                else:
                    store.delete([_url(self._folder, self._holder.token)])
                    store.remove_empty(self._folder)

    def _beat(self) -> None:
        while not self._over.wait(self._renew_s) and self._lost is None:
            # The next beat tries again; `check` tells when there were none for long.
            with contextlib.suppress(InfrastructureError):
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            start = time.monotonic()
            found = _last(self._folder)
            if found is None or found.owner != self._holder.owner:
                by = "removed" if found is None else f"taken over by {found.name}"
                self._lost = f"{self._what} {_shown(self._folder)}: this run's lease was {by}; it stops here"
                return
            self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
            _write(self._folder, self._holder)
            self._renewed = start


@contextlib.contextmanager
def hold(
    place: str, ttl_s: float = TTL_S, renew_s: float = RENEW_S, what: str = "work_dir", leave: bool = True
) -> Iterator[Lease]:
    """Hold the lease of a folder, a `work_dir` for instance, for the length of the block.

    Args:
        place: URL of the folder.
        ttl_s: seconds without a beat after which others may take it over.
        renew_s: seconds between beats.
        what: the folder is to people.
        leave: whether the last word stays there; without it the next token is 1 again.

    Raises:
        BusyError: a live run holds it.
        InfrastructureError: the store cannot be reached.
    """
    folder = store.join(place, FOLDER)
    lease = Lease(folder, _take(folder, ttl_s, renew_s, what), renew_s, what)
    try:
        yield lease
    finally:
        lease.release(leave)


def _take(folder: str, ttl_s: float, renew_s: float, what: str) -> Holder:
    """Wait until the lease is free or stale, and take it.

    Raises:
        BusyError: it is alive, or another run was quicker.
    """
    before = _last(folder)
    watched = before
    while before is not None and not before.released and before.alive() is not False:
        if before.alive() or before != watched:
            raise _busy(folder, before, what)
        age = _age(folder, before)
        if age > before.ttl_s:
            log.info(
                "%s %s: %s has been silent for %.0f s; taking over", what, _shown(folder), before.name, age
            )
            break
        if watched is before:
            seen = f"{before.name} was here {age:.0f} s ago"
            log.info("%s %s: %s; waiting for a sign of life", what, _shown(folder), seen)
        time.sleep(min(renew_s, before.ttl_s - age + 0.1))
        before = _last(folder)
    mine = Holder(
        token=before.token + 1 if before is not None else 1,
        owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}",
        host=socket.gethostname(),
        pid=os.getpid(),
        space=_space(),
        started=_started(os.getpid()) or 0,
        ttl_s=ttl_s,
    )
    url, data = _url(folder, mine.token), _bytes(mine)
    if store.honours_create(store.join(folder, f"probe-{mine.owner}")):
        # A put whose answer was lost is tried again and then finds itself.
        taken = store.create(url, data) or store.read_bytes(url) == data
    else:
        taken = _through_the_door(folder, mine, ttl_s)
    if taken and (found := _last(folder)) is not None and found.token > mine.token:
        # What was seen at first was old: others took the lease meanwhile and cleared away the
        # objects of those before, this token's among them. (Two contenders on a busy machine: in
        # one of 50 tries both held it.)
        store.delete([url])
        raise _busy(folder, found, what)
    if not taken:
        raise _busy(folder, _last(folder), what)
    store.delete([file.url for file in _objects(folder) if _token(file.url) < mine.token])
    return mine


def _through_the_door(folder: str, mine: Holder, ttl_s: float) -> bool:
    """Make the token's object where a put knows no conditions; False: another run is before this one.

    Lamport's bakery: announce that a number is being drawn, draw one above all that are seen, and
    go in when nobody is drawing and nobody has a lower one. It asks of the store only that a
    listing shows every put that has returned. Inside, the token is looked for again, so that one
    who was long on the way finds it taken. Whoever meets a lower number goes away instead of
    waiting: that one gets in, or has found the lease taken.
    """
    door = store.join(folder, "door")
    drawing = store.join(door, f"drawing-{mine.owner}")
    store.write_bytes(drawing, b"")
    number = max((_number(file.url) for file in store.list_files(door)), default=0) + 1
    ticket = store.join(door, f"{number:08d}-{mine.owner}")
    start = time.monotonic()
    store.write_bytes(ticket, b"")
    store.delete([drawing])
    try:
        while others := _present(door, mine.owner, ttl_s):
            if any(_number(url) and _name(url) < _name(ticket) for url in others):
                return False
            if not any(_number(url) == 0 for url in others):
                break
            time.sleep(0.05)
        found = _last(folder)
        # Those outside take this one for dead after `ttl_s`.
        if (found is not None and found.token >= mine.token) or time.monotonic() - start > ttl_s / 2:
            return False
        store.write_bytes(_url(folder, mine.token), _bytes(mine))
        return True
    finally:
        store.delete([ticket])


def _present(door: str, owner: str, ttl_s: float) -> list[str]:
    """Who else stands at the door; what the dead left is removed."""
    others = [file.url for file in store.list_files(door) if not file.url.endswith(owner)]
    if not others:
        return []
    now = _now(door, owner)
    present = []
    for url in others:
        with contextlib.suppress(FileNotFoundError):
            if now - store.modified(url) <= ttl_s:
                present.append(url)
            else:
                store.delete([url])
    return present


def _last(folder: str) -> Holder | None:
    """The holder with the highest token."""
    for file in sorted(_objects(folder), key=lambda file: -_token(file.url)):
        with contextlib.suppress(FileNotFoundError):
            return Holder(**json.loads(store.read_bytes(file.url)))
    return None


def _objects(folder: str) -> Sequence[store.FileInfo]:
    return [file for file in store.list_files(store.join(folder, "*.json")) if _token(file.url)]


def _write(folder: str, holder: Holder) -> None:
    store.write_bytes(_url(folder, holder.token), _bytes(holder))


def _url(folder: str, token: int) -> str:
    return store.join(folder, f"{token:08d}.json")


def _bytes(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder), sort_keys=True).encode()


def _token(url: str) -> int:
    name = _name(url).removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def _number(url: str) -> int:
    """The number on a ticket; 0 for one who is still drawing."""
    first = _name(url).split("-")[0]
    return int(first) if first.isdecimal() else 0


def _name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _age(folder: str, holder: Holder) -> float:
    """Seconds since its last beat, both ends by the store's clock."""
    try:
        return _now(folder, f"{os.getpid()}-{uuid.uuid4().hex[:12]}") - store.modified(
            _url(folder, holder.token)
        )
    except FileNotFoundError:
        return 0.0


def _now(folder: str, owner: str) -> float:
    """The store's time."""
    url = store.join(folder, "clock", owner)
    for _ in range(_CLOCK_TRIES):
        store.write_bytes(url, b"")
        try:
            return store.modified(url)
        except FileNotFoundError:
            # rclone may not know a new object for a moment, while another one of its folder is deleted.
            continue
        finally:
            store.delete([url])
    raise InfrastructureError(f"{store.redact(url)}: was written and is not there")


def _busy(folder: str, holder: Holder | None, what: str) -> BusyError:
    by = (
        "another run is starting there" if holder is None else f"another run is at work there ({holder.name})"
    )
    return BusyError(f"{what} {_shown(folder)}: {by}")


def _shown(folder: str) -> str:
    return store.redact(folder.removesuffix(f"/{FOLDER}"))


def _space() -> str:
    """In which set of processes a pid of this machine is unique; empty where that is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When the process started, in ticks since the machine did; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name in parentheses may hold anything.
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
