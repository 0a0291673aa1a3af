"""Translation of the exceptions of filesystems into three kinds.

`FileNotFoundError` means that an object does not exist. A fault that may pass (429, 5xx, time-outs,
resets, truncated bodies) is an InfrastructureError. What a person must fix (keys, permissions, a
missing bucket, a full disk) is a UserError. Messages contain no credentials.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from d2prune.errors import InfrastructureError, UserError
from d2prune.store.urls import redact

_TRANSIENT = re.compile(
    r"slow ?down|too ?many ?requests|rate ?limit|throttl|request ?timeout|internal ?error"
    r"|service ?unavailable|\b(429|500|502|503|504)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"credential|access ?denied|forbidden|\b403\b|\b401\b|signature|invalidaccesskey|unauthori|permission"
    r"|read-only|invalid ?bucket ?name|no space left|quota",
    re.IGNORECASE,
)
_UNWRITABLE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file exceeds the size limit (ulimit -f, or a limit of the filesystem)",
    errno.EROFS: "the filesystem is read-only",
}
# What the name of a location, and not the machine, is the cause of.
_UNUSABLE = {
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a symbolic link leads back to itself",
    errno.EILSEQ: "the filesystem does not accept this name",
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "gcsfs", "requests", "google", "urllib3"})


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without credentials."""
    text = _URL.sub(lambda match: redact(match.group()), " ".join(str(error).split()))
    for name in _SECRETS:
        secret = os.environ.get(name)
        if secret and len(secret) >= 8:
            text = text.replace(secret, f"({name})")
    return text


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Translate what the block raises; the message starts with `url`."""
    try:
        with _revealed(url):
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
        if number in _UNWRITABLE:
            raise UserError(f"{redact(url)}: cannot be written: {_UNWRITABLE[number]}") from error
        # botocore, aiohttp and gcsfs raise types of their own with only the text in common. URLs
        # are left out of the search, since an object may be named after an error.
        text = f"{type(error).__name__}: {one_line(error)}"
        words = _URL.sub("", text)
        if not _TRANSIENT.search(words) and _DENIED.search(words):
            raise UserError(f"{redact(url)}: {text}") from error
        if isinstance(error, (OSError, TimeoutError)) or type(error).__module__.split(".")[0] in _CLIENTS:
            raise InfrastructureError(f"{redact(url)}: {text}") from error
        raise


@contextlib.contextmanager
def _revealed(url: str) -> Iterator[None]:
    """Raise what is behind a "not found" over HTTP, and a UserError for a name that cannot be used."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise UserError(f"{redact(url)!a}: the name is not UTF-8") from error
    except FileNotFoundError as error:
        # fsspec reports every failure of an HTTP request this way, a refused connection included.
        cause = error.__cause__
        if type(cause).__module__.startswith("aiohttp") and getattr(cause, "status", None) not in (404, 410):
            raise cause or error from None
        raise
    except OSError as error:
        if error.errno in _UNUSABLE:
            raise UserError(f"{redact(url)}: {_UNUSABLE[error.errno]}") from error
        raise


@contextlib.contextmanager
def translated_write(url: str) -> Iterator[None]:
    """Like `translated`, for writes, where "not found" means a missing bucket or folder."""
    with translated(url):
        try:
            yield
        except FileNotFoundError as error:
            missing = "its folder cannot be made" if url.startswith("/") else "its bucket does not exist"
            raise UserError(f"{redact(url)}: cannot be written, {missing}: {one_line(error)}") from error
