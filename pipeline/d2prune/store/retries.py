"""The one retry layer: attempts at requests to storage, and the limit on concurrent requests.

A request that fails with an `InfrastructureError` is made again after a pause, which grows to at
most 10 s. Half of each pause is random, so that a thousand workers do not return at the same
moment. The other half is fixed: ten attempts span at least 21 s, so a store that is away for 20 s
ends no run.

No other layer retries. Filesystems are opened with their own retries off (`store.filesystem`; gcsfs
is the exception, see there). Executors run a unit again only if its worker was lost, not if it
raised an error. So one request is made at most `attempts()` times, and a store that asks for fewer
requests does not get more. Streams of local files are not retried: a network filesystem retries in
the kernel.

docs/decisions/0007-one-retry-layer.md has the reasons.
"""

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Iterator

import tenacity

from d2prune.errors import InfrastructureError, UserError
from d2prune.store.faults import translated

log = logging.getLogger(__name__)

ATTEMPTS_VARIABLE = "D2PRUNE_STORAGE_ATTEMPTS"
"""Environment variable: attempts at one request; 10 take 21 to 43 s, more with time-outs."""

REQUESTS_VARIABLE = "D2PRUNE_STORAGE_REQUESTS"
"""Environment variable: concurrent requests of one process."""

_ATTEMPTS = 10
_REQUESTS = 32
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
# Attempt from which a failure is a warning. Stores answer 503 now and then in normal operation.
_WARN_FROM = 3


def attempts() -> int:
    """Attempts at one request."""
    return _read_number(ATTEMPTS_VARIABLE, _ATTEMPTS)


def requests() -> int:
    """Concurrent requests of this process."""
    return _read_number(REQUESTS_VARIABLE, _REQUESTS)


def _read_number(variable: str, default: int) -> int:
    given = os.environ.get(variable)
    if given is None:
        return default
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{variable}={given!r} in the environment: expected a whole number, at least 1")
    return int(given)


@functools.cache
def _request_slots(pid: int) -> threading.BoundedSemaphore:
    # One per process: a forked child must not inherit slots that threads of its parent hold.
    return threading.BoundedSemaphore(requests())


@contextlib.contextmanager
def request(url: str) -> Iterator[None]:
    """Make one request in the block: wait for a free slot, translate errors. Never nest it."""
    with _request_slots(os.getpid()), translated(url):
        yield


def _choose_pause(state: tenacity.RetryCallState) -> float:
    half, longest = _PAUSE_S / 2, _LONGEST_PAUSE_S / 2
    fixed = tenacity.wait_exponential(multiplier=half, max=longest)(state)
    return fixed + tenacity.wait_random_exponential(multiplier=half, max=longest)(state)


def _log_attempt(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    level = logging.WARNING if state.attempt_number >= _WARN_FROM else logging.DEBUG
    log.log(level, "%s (attempt %d of %d)", error, state.attempt_number, attempts())


retrying = tenacity.retry(
    retry=tenacity.retry_if_exception_type(InfrastructureError),
    wait=_choose_pause,
    stop=lambda state: state.attempt_number >= attempts(),
    before_sleep=_log_attempt,
    reraise=True,
)
"""Decorator of a function that makes one request: repeat it after an `InfrastructureError`."""
