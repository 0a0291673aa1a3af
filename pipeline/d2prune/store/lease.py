"""A lease on a work_dir or an output, which one run holds at a time.

    <folder>/.lease/<token>.json     the holder, rewritten at each renewal; `released` at the end
    <folder>/.lease/door/...         on stores without conditional puts, while a run takes it

A lease has an owner, an expiry and a fencing token. A run takes it by creating the object of the
next token, which exactly one run can: with a conditional put, or where the store does not support
one, with Lamport's bakery algorithm. Tokens only grow. A holder rewrites its object every few
seconds; if it finds a higher token, or another owner in its own object, or cannot rewrite the object
for `TTL_S`, it has lost the lease and stops before its next commit. The lease of an object that is
not rewritten for `TTL_S` may be taken over; the lease of a process that died on this machine may be
taken over immediately. Ages are differences between times of the store, so no two clocks are
compared.

A lost race costs work and never changes bytes: units are deterministic and every write is atomic.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from d2prune import store
from d2prune.errors import BusyError, D2PruneError, InfrastructureError, UserError
from d2prune.store import bakery, lease_record
from d2prune.store.lease_record import Holder
from d2prune.store.processes import process_namespace, start_time

log = logging.getLogger(__name__)

FOLDER = ".lease"
RENEW_S = 5.0
TTL_S = 60.0
"""Twelve renewals: a driver may miss some while a compiled kernel runs or the store is away."""


class Lease:
    """A lease that is held. A thread renews it until `release`.

    A renewal that fails, whatever the cause, is tried again: until `ttl_s` after the last one that
    succeeded no other run may take the lease over. After that it is lost.
    """

    def __init__(self, folder: str, holder: Holder, renew_s: float, label: str) -> None:
        """Start renewing.

        Args:
            folder: of the lease.
            holder: the record that this run has written.
            renew_s: seconds between renewals.
            label: what messages call the folder.
        """
        self._folder, self._holder, self._renew_s, self._label = folder, holder, renew_s, label
        self._lost: D2PruneError | None = None
        self._last_renewal = time.monotonic()
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew_regularly, name="lease", daemon=True)
        self._thread.start()

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier holder."""
        return self._holder.token

    def check(self) -> None:
        """Return if the lease is held. Called before each commit.

        If it has not been renewed for half of its time, a commit might end after its expiry: renew
        it first, until that succeeds or the lease has expired.

        Raises:
            BusyError: another run has taken it over.
            UserError, InfrastructureError: it expired, since the store refused or failed.
        """
        while self._lost is None and self._age() > self._holder.ttl_s / 2:
            fault = self._try_to_renew()
            if fault is None or self._lost is not None:
                break
            if self._age() > self._holder.ttl_s:
                self._lost = _expired_error(fault, self._folder, self._label, self._age())
                break
            time.sleep(min(self._renew_s, self._holder.ttl_s / 20))
        if self._lost is not None:
            raise self._lost

    def release(self, keep_record: bool = True) -> None:
        """Give the lease up, unless it was lost; without `keep_record` delete its objects."""
        self._released.set()
        # A request to a filesystem that hangs may never return.
        self._thread.join(self._holder.ttl_s)
        if self._lost is None and not self._thread.is_alive():
            # If this fails, the record expires, or the death of this process is seen.
            with contextlib.suppress(D2PruneError, OSError):
                if keep_record:
                    lease_record.write_holder(self._folder, dataclasses.replace(self._holder, released=True))
                else:
                    store.delete([lease_record.holder_url(self._folder, self._holder.token)])
                    store.remove_empty_folders(self._folder)

    def _age(self) -> float:
        """Seconds since the last renewal."""
        return time.monotonic() - self._last_renewal

    def _renew_regularly(self) -> None:
        while not self._released.wait(self._renew_s) and self._lost is None:
            fault = self._try_to_renew()
            if fault is not None:
                log.warning(
                    "%s: lease not renewed for %.0f s, trying again: %s",
                    _describe(self._folder, self._label),
                    self._age(),
                    fault,
                )

    def _try_to_renew(self) -> Exception | None:
        """Renew, or find out that the lease was lost; return the error if neither was possible."""
        try:
            self._renew()
        except Exception as error:
            # Whatever it is: a thread that ends would leave a live run without a lease.
            return error
        return None

    def _renew(self) -> None:
        if not self._lock.acquire(timeout=max(0.0, self._holder.ttl_s - self._age())):
            raise InfrastructureError(f"{store.redact(self._folder)}: no answer to the last renewal")
        try:
            start = time.monotonic()
            latest = lease_record.read_latest(self._folder)
            mine = latest is not None and latest.token == self._holder.token
            # A damaged record of this token is this run's, and is repaired.
            if latest is None or not (mine and latest.owner in (self._holder.owner, lease_record.UNKNOWN)):
                fate = "was removed" if latest is None else f"was taken over by {latest.name}"
                self._lost = BusyError(
                    f"{_describe(self._folder, self._label)}: this run's lease {fate}; stopping"
                )
                return
            self._holder = dataclasses.replace(self._holder, beat=self._holder.beat + 1)
            lease_record.write_holder(self._folder, self._holder)
            self._last_renewal = start
        finally:
            self._lock.release()


def _expired_error(fault: Exception, folder: str, label: str, age_s: float) -> D2PruneError:
    kind = UserError if isinstance(fault, UserError) else InfrastructureError
    return kind(
        f"{_describe(folder, label)}: this run's lease could not be renewed for {age_s:.0f} s ({fault}); "
        "stopping; the same command resumes"
    )


@contextlib.contextmanager
def hold(
    url: str,
    ttl_s: float = TTL_S,
    renew_s: float = RENEW_S,
    label: str = "work_dir",
    keep_record: bool = True,
) -> Iterator[Lease]:
    """Hold the lease of a folder for the length of the block.

    Args:
        url: of the folder, for instance a `work_dir`.
        ttl_s: seconds without a renewal after which other runs may take it over.
        renew_s: seconds between renewals.
        label: what messages call the folder.
        keep_record: whether the last record stays; without it tokens start at 1 again.

    Raises:
        BusyError: a live run holds it.
        InfrastructureError: the store cannot be reached.
    """
    folder = store.join(url, FOLDER)
    lease = Lease(folder, _acquire(folder, ttl_s, renew_s, label), renew_s, label)
    try:
        yield lease
    finally:
        lease.release(keep_record)


def _acquire(folder: str, ttl_s: float, renew_s: float, label: str) -> Holder:
    """Wait until the lease is free or stale, and take it.

    Raises:
        BusyError: its holder is alive, or another run was quicker.
    """
    before = _wait_until_free(folder, renew_s, label)
    mine = _new_holder(before.token + 1 if before is not None else 1, ttl_s)
    taken = _create_record(folder, mine, ttl_s)
    latest = lease_record.read_latest(folder)
    if taken and latest is not None and latest.token > mine.token:
        # The listing that chose this token was outdated: others have taken the lease since, and
        # have deleted earlier records, this token's among them. Without this check two contenders
        # on a busy machine both held the lease in 1 of 50 attempts.
        store.delete([lease_record.holder_url(folder, mine.token)])
        raise _busy_error(folder, latest, label)
    if not taken:
        raise _busy_error(folder, latest, label)
    records = lease_record.list_records(folder)
    store.delete([file.url for file in records if lease_record.token_of(file.url) < mine.token])
    return mine


def _wait_until_free(folder: str, renew_s: float, label: str) -> Holder | None:
    """Wait until the lease is released or stale, or its holder dead; return that holder, if any."""
    first = latest = lease_record.read_latest(folder)
    while latest is not None and not latest.released and latest.alive() is not False:
        if latest.alive() or latest != first:
            raise _busy_error(folder, latest, label)
        age = lease_record.seconds_since_renewal(folder, latest)
        if age > latest.ttl_s:
            log.info(
                "%s: %s has not renewed its lease for %.0f s; taking over",
                _describe(folder, label),
                latest.name,
                age,
            )
            break
        if latest is first:
            log.info(
                "%s: %s renewed its lease %.0f s ago; waiting to see whether it is alive",
                _describe(folder, label),
                latest.name,
                age,
            )
        time.sleep(min(renew_s, latest.ttl_s - age + 0.1))
        latest = lease_record.read_latest(folder)
    return latest


def _new_holder(token: int, ttl_s: float) -> Holder:
    return Holder(
        token=token,
        owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}",
        host=socket.gethostname(),
        pid=os.getpid(),
        space=process_namespace(),
        started=start_time(os.getpid()) or 0,
        ttl_s=ttl_s,
    )


def _create_record(folder: str, mine: Holder, ttl_s: float) -> bool:
    """Create the record of `mine` unless another run has its token; return whether it did."""
    url, data = lease_record.holder_url(folder, mine.token), lease_record.encode(mine)
    if store.supports_create(store.join(folder, f"probe-{mine.owner}")):
        # If the answer to a put is lost, its next attempt finds the object of the first.
        return store.create(url, data) or store.read_bytes(url) == data
    read_clock = functools.partial(lease_record.store_time, folder, mine.owner)
    door = store.join(folder, "door")
    with bakery.critical_section(door, mine.owner, ttl_s, read_clock) as may_act:
        # Read again inside: another run may have taken the token before this one entered.
        latest = lease_record.read_latest(folder)
        if (latest is not None and latest.token >= mine.token) or not may_act():
            return False
        store.write_bytes(url, data)
        return True


def _busy_error(folder: str, holder: Holder | None, label: str) -> BusyError:
    if holder is None:
        return BusyError(f"{_describe(folder, label)}: another run is starting there")
    return BusyError(f"{_describe(folder, label)}: another run is in progress there ({holder.name})")


def _describe(folder: str, label: str) -> str:
    return f"{label} {store.redact(folder.removesuffix(f'/{FOLDER}'))}"
