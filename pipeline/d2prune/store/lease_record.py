"""The objects of a lease: the record of each holder, and the store's own clock.

A record is the JSON of a `Holder` at `<folder>/.lease/<token>.json`. To read the store's time,
`<folder>/.lease/clock/<owner>` is written and deleted.
"""

import contextlib
import json
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.store.processes import process_namespace, start_time

log = logging.getLogger(__name__)

UNKNOWN = ""
"""Owner of a damaged record."""

_UNKNOWN_TTL_S = 60.0
_CLOCK_ATTEMPTS = 5


@dataclass(frozen=True)
class Holder:
    """The record of one holder.

    Attributes:
        token: the fencing token, also the name of the object.
        owner: unique to this holder.
        host: name of its machine, for messages.
        pid: its process id.
        space: see `process_namespace`.
        started: see `start_time`; process ids are used again.
        ttl_s: seconds without a renewal after which the lease is stale.
        beat: number of renewals.
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
        """Its process, for messages."""
        return f"process {self.pid} on {self.host}"

    def alive(self) -> bool | None:
        """Whether its process runs; None if that cannot be seen from this machine."""
        if not self.space or self.space != process_namespace():
            return None
        return start_time(self.pid) == self.started


def holder_url(folder: str, token: int) -> str:
    """URL of the record with a token; `folder` is that of the lease."""
    return store.join(folder, f"{token:08d}.json")


def read_latest(folder: str) -> Holder | None:
    """The record with the highest token; a damaged one is that of an unknown holder.

    Its holder, if it is alive, rewrites it; else it expires like any other.
    """
    for file in sorted(list_records(folder), key=lambda file: -token_of(file.url)):
        with contextlib.suppress(FileNotFoundError):
            return _parse_holder(file.url, store.read_bytes(file.url))
    return None


def _parse_holder(url: str, data: bytes) -> Holder:
    try:
        holder = Holder(**json.loads(data))
        if not (holder.token == token_of(url) and isinstance(holder.ttl_s, int | float)):
            raise ValueError("expected its token, and a number as ttl_s")
        return holder
    except (ValueError, TypeError, RecursionError) as error:
        log.warning("%s: damaged lease record (%s)", store.redact(url), error)
        return Holder(token_of(url), UNKNOWN, "an unknown machine", 0, "", 0, _UNKNOWN_TTL_S)


def list_records(folder: str) -> Sequence[store.FileInfo]:
    """All records of a lease."""
    return [file for file in store.list_files(folder, "*.json") if token_of(file.url)]


def token_of(url: str) -> int:
    """The token in the URL of a record; 0 if it is none."""
    name = url.rsplit("/", 1)[-1].removesuffix(".json")
    return int(name) if name.isdecimal() else 0


def write_holder(folder: str, holder: Holder) -> None:
    """Write, or overwrite, the record of a holder."""
    # Its content must survive a power cut: a damaged record stops the next run.
    store.write_bytes(holder_url(folder, holder.token), encode(holder), store.Sync.LATER)


def encode(holder: Holder) -> bytes:
    """The record as JSON."""
    return store.encode_record(holder, sort_keys=True)


def seconds_since_renewal(folder: str, holder: Holder) -> float:
    """Age of a holder's record, by the store's clock."""
    try:
        now = store_time(folder, f"{os.getpid()}-{uuid.uuid4().hex[:12]}")
        return now - store.modified(holder_url(folder, holder.token))
    except FileNotFoundError:
        return 0.0


def store_time(folder: str, owner: str) -> float:
    """The time of the store's clock, read by writing an object; `owner` makes its name unique."""
    url = store.join(folder, "clock", owner)
    for _ in range(_CLOCK_ATTEMPTS):
        store.write_bytes(url, b"", store.Sync.NEVER)
        try:
            return store.modified(url)
        except FileNotFoundError:
            # rclone may not see a new object while another one in the same folder is being deleted.
            continue
        finally:
            store.delete([url])
    raise InfrastructureError(f"{store.redact(url)}: not found right after it was written")
