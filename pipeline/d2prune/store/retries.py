"""One request to storage: what its failure means, when it is tried again, how many are under way at once.

The only layer that retries: filesystems are opened with their own retries off, so that a store that
asks for less is not asked five times five times. A request that may pass (429, 5xx, timeouts,
resets, bodies cut short) is tried again after a growing pause, half of it random, so that a
thousand workers do not come back at once and that none has used up its tries before a store that
was away for 20 seconds is back. What a person must mend (keys, rights, a missing bucket, a full
disk) is not. Messages hold no credentials.
"""

import contextlib
import errno
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator

import tenacity

from d2prune.errors import InfrastructureError, UserError

log = logging.getLogger(__name__)

ATTEMPTS_VARIABLE = "D2PRUNE_STORAGE_ATTEMPTS"
"""Environment: tries of one request before the unit of work fails; 10 last 20 to 45 seconds, more with timeouts."""

REQUESTS_VARIABLE = "D2PRUNE_STORAGE_REQUESTS"
"""Environment: requests of one process under way at once."""

_ATTEMPTS = 10
_REQUESTS = 32
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_LOUD_FROM = 3
"""A request that failed this often is told at the usual level; stores answer 503 now and then as a matter of course."""

_PASSING = re.compile(
    r"slow ?down|too ?many ?requests|rate ?limit|throttl|request ?timeout|internal ?error|service ?unavailable"
    r"|\b(429|500|502|503|504)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"credential|access ?denied|forbidden|\b403\b|\b401\b|signature|invalidaccesskey|unauthori|permission|read-only"
    r"|invalid ?bucket ?name|no space left|quota",
    re.IGNORECASE,
)
_FULL_OR_CLOSED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not become this large here (ulimit -f, or a limit of the filesystem)",
    errno.EROFS: "the filesystem is read-only",
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "gcsfs", "requests", "google", "urllib3"})


def redact(url: str) -> str:
    """`url` without a user name, password or query string, for logs, manifests and messages."""
    return re.sub(r"//[^/@\s]*@", "//", url.split("?", 1)[0])


def one_line(error: BaseException) -> str:
    """What an error says, on one line, without credentials."""
    text = _URL.sub(lambda match: redact(match.group()), " ".join(str(error).split()))
    for name in _SECRETS:
        secret = os.environ.get(name)
        if secret and len(secret) >= 8:
            text = text.replace(secret, f"({name})")
    return text


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what a filesystem raises into `FileNotFoundError`, `UserError` or `InfrastructureError`, naming `url`."""
    try:
        yield
    except (UserError, InfrastructureError):
        raise
    except FileNotFoundError as error:
        # s3fs reports a missing bucket this way too, on reads and on writes.
        raise FileNotFoundError(f"{redact(url)}: not found") from error
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{redact(url)}: {one_line(error)}") from error
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL_OR_CLOSED:
            raise UserError(f"{redact(url)}: cannot be written: {_FULL_OR_CLOSED[number]}") from error
        # botocore, aiohttp and gcsfs raise their own types; the text is all they have in common.
        # Names of objects in it say nothing of the fault.
        text = f"{type(error).__name__}: {one_line(error)}"
        words = _URL.sub("", text)
        if not _PASSING.search(words) and _DENIED.search(words):
            raise UserError(f"{redact(url)}: {text}") from error
        if isinstance(error, (OSError, TimeoutError)) or type(error).__module__.split(".")[0] in _CLIENTS:
            raise InfrastructureError(f"{redact(url)}: {text}") from error
        raise


def attempts() -> int:
    """Tries of one request."""
    return _number(ATTEMPTS_VARIABLE, _ATTEMPTS)


def requests() -> int:
    """Requests of this process that may be under way at once."""
    return _number(REQUESTS_VARIABLE, _REQUESTS)


def _number(variable: str, default: int) -> int:
    given = os.environ.get(variable)
    if given is None:
        return default
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{variable}={given!r} in the environment: expected a whole number, at least 1")
    return int(given)


@functools.cache
def _slots(pid: int) -> threading.BoundedSemaphore:
    # By process: a forked child must not inherit slots that its parent's threads held.
    return threading.BoundedSemaphore(requests())


@contextlib.contextmanager
def request(url: str) -> Iterator[None]:
    """One request to a remote store: waits for a slot of this process, and is `translated`. Never nested."""
    with _slots(os.getpid()), translated(url):
        yield


def _pause(state: tenacity.RetryCallState) -> float:
    half, longest = _PAUSE_S / 2, _LONGEST_PAUSE_S / 2
    fixed = tenacity.wait_exponential(multiplier=half, max=longest)(state)
    return fixed + tenacity.wait_random_exponential(multiplier=half, max=longest)(state)


def _tell(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    level = logging.WARNING if state.attempt_number >= _LOUD_FROM else logging.DEBUG
    log.log(level, "%s (try %d of %d)", error, state.attempt_number, attempts())


retrying = tenacity.retry(
    retry=tenacity.retry_if_exception_type(InfrastructureError),
    wait=_pause,
    stop=lambda state: state.attempt_number >= attempts(),
    before_sleep=_tell,
    reraise=True,
)
"""Decorates a function that makes one request: an `InfrastructureError` makes another, after a pause with jitter."""
