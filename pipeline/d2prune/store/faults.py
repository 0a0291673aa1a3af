"""Translation of the exceptions of filesystems into three kinds.

`FileNotFoundError` means that an object does not exist, and nothing else: a store that cannot be
reached, or that refuses to answer, has not said so. A fault that may pass (429, 5xx, time-outs,
resets, refused connections, truncated bodies) is an InfrastructureError. What a person must fix
(keys, permissions, a certificate, a region, a clock, a full disk) is a UserError. Messages name the
cause and the next step, and contain no credentials, and neither do the exceptions they chain.
"""

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import NamedTuple

from d2prune.errors import InfrastructureError, UserError
from d2prune.redaction import redact, redact_text
from d2prune.store.urls import S3_SCHEMES

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
_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "gcsfs", "requests", "google", "urllib3"})


class _Cause(NamedTuple):
    """A cause that the words of an error show, what to do about it, and whether waiting may help."""

    words: re.Pattern[str]
    advice: str
    may_pass: bool


def _cause(words: str, advice: str, may_pass: bool = False) -> _Cause:
    return _Cause(re.compile(words, re.IGNORECASE), advice, may_pass)


_ENDPOINT = " (AWS_ENDPOINT_URL)"
# The first that fits applies. Libraries word the same fault differently, and botocore reports a
# refused connection and an unknown host with the same words, so those of the errors behind are searched, too.
_CAUSES = (
    _cause(
        r"certificate|wrong.version.number|sslv3|tlsv1 alert",
        "its TLS certificate was not accepted: check the address and port; SSL_CERT_FILE or AWS_CA_BUNDLE "
        "names the certificate of a private authority",
    ),
    _cause(
        r"time ?too ?skewed|difference between the request time|request has expired|request is expired"
        r"|not yet current",
        "the request's time was not accepted: set this machine's clock, or renew the URL or the token",
    ),
    _cause(
        r"permanent ?redirect|authorization ?header ?malformed|the region '.*' is wrong"
        r"|must be addressed using|\b301\b|moved permanently|illegal ?location",
        "the bucket is in another region: set AWS_DEFAULT_REGION to it, or AWS_ENDPOINT_URL to its endpoint",
    ),
    _cause(
        r"name or service not known|getaddrinfo|nodename nor servname|name resolution|no address associated"
        r"|dns",
        "its host name is not known here: check the name" + _ENDPOINT + " and this machine's DNS",
        may_pass=True,
    ),
    _cause(
        r"connection refused|connect call failed|could not connect to the endpoint|cannot connect to host"
        r"|no route to host|network is unreachable",
        "no server answers there: check the address" + _ENDPOINT + ", the proxy, and that the server runs",
        may_pass=True,
    ),
    _cause(
        r"timed? ?out|timeout",
        "the server did not answer in time: check the network and the proxy, or try again later",
        may_pass=True,
    ),
    _cause(
        r"expired",
        "the credentials have expired: renew them",
    ),
    _cause(
        r"\b401\b|unauthori|credential|signature|invalidaccesskey|access ?key ?id",
        "the credentials are missing or wrong: check those that the store's own tools use",
    ),
    _cause(
        r"\b403\b|forbidden|access ?denied|permission",
        "the store refuses access with these credentials: check their permissions for this address",
    ),
)
_NOT_FOUND = frozenset({404, 410})


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without credentials."""
    return redact_text(" ".join(str(error).split()))


def _list_chain(error: BaseException) -> list[BaseException]:
    """The error and those behind it, at most ten."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain and len(chain) < 10:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def _find_cause(error: BaseException) -> _Cause | None:
    """The cause of an error that came over the network."""
    chain = _list_chain(error)
    if not any(isinstance(link, TimeoutError) or _is_of_client(link) for link in chain):
        return None
    # URLs are left out of the search, since an object may be named after an error.
    words = " ".join(f"{type(link).__name__} {_URL.sub('', str(link))}" for link in chain)
    return next((cause for cause in _CAUSES if cause.words.search(words)), None)


def _is_of_client(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in _CLIENTS


def _behind(error: FileNotFoundError) -> BaseException:
    """What a "not found" was made from if that is something else: fsspec reports any error over HTTP so."""
    link = error.__cause__
    if link is None or getattr(link, "status", None) in _NOT_FOUND:
        return error
    over_http = type(link).__module__.split(".")[0] == "aiohttp" or isinstance(link, TimeoutError)
    return link if over_http else error


def _chained(error: BaseException) -> BaseException:
    """`error` to chain, or a stand-in if it, or one behind it, holds credentials."""
    texts = [str(link) for link in _list_chain(error)]
    if all(text == redact_text(text) for text in texts):
        return error
    return RuntimeError(f"{type(error).__name__}: {one_line(error)}")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Translate what the block raises; the message starts with `url`."""
    try:
        with _revealed(url):
            yield
    except (UserError, InfrastructureError):
        raise
    except FileNotFoundError as error:
        behind = _behind(error)
        if behind is not error:
            raise _translate(url, behind) from _chained(behind)
        # s3fs reports a missing bucket this way too, on reads and on writes.
        raise FileNotFoundError(f"{redact(url)}: not found") from _chained(error)
    except Exception as error:
        translation = _translate(url, error)
        if translation is error:
            raise
        raise translation from _chained(error)


def _translate(url: str, error: BaseException) -> BaseException:
    """The error to raise instead; `error` itself if it is not one of a filesystem."""
    if getattr(error, "status", None) in _NOT_FOUND:
        return FileNotFoundError(f"{redact(url)}: not found")
    number = error.errno if isinstance(error, OSError) else None
    if number in _UNWRITABLE:
        return UserError(f"{redact(url)}: cannot be written: {_UNWRITABLE[number]}")
    cause = _find_cause(error)
    advice = f"; {cause.advice}" if cause else ""
    if not url.startswith(S3_SCHEMES):
        advice = advice.replace(_ENDPOINT, "")
    if isinstance(error, (PermissionError, NotADirectoryError, IsADirectoryError)):
        return UserError(f"{redact(url)}: {one_line(error)}{advice}")
    # botocore, aiohttp and gcsfs raise types of their own with only the text in common.
    text = f"{type(error).__name__}: {one_line(error)}{advice}"
    words = _URL.sub("", f"{type(error).__name__}: {one_line(error)}")
    may_pass = _TRANSIENT.search(words) or (cause is not None and cause.may_pass)
    if not may_pass and (cause is not None or _DENIED.search(words)):
        return UserError(f"{redact(url)}: {text}")
    if isinstance(error, (OSError, TimeoutError)) or _is_of_client(error):
        return InfrastructureError(f"{redact(url)}: {text}")
    return error


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
            raise UserError(f"{redact(url)}: cannot be written, {missing}: {one_line(error)}") from _chained(
                error
            )
