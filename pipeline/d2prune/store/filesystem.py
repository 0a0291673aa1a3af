"""The fsspec filesystem of a URL, opened without caches, chains or fsspec retries."""

import os
import re
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from d2prune.errors import UserError
from d2prune.extras import MODULE_OF_SCHEME, require
from d2prune.redaction import redact
from d2prune.store import retries
from d2prune.store.faults import one_line, translated
from d2prune.store.patterns import split_query
from d2prune.store.urls import S3_SCHEMES

# HTTP has users and passwords, and signed queries; the clients of the other stores ignore them.
_WITHOUT_CREDENTIALS = re.compile(r"(s3a?|gs|gcs|abfss?|wasbs?|az|adl)://", re.IGNORECASE)
_ONE_SLASH = re.compile(r"(s3a?|gs|gcs|https?|abfss?|wasbs?|az|adl):/(?!/)", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# fsspec's filesystems inside another file. They are named in chains, such as zip://a.tar::s3://b/c.zip.
_CHAINED = frozenset(
    "async_wrapper blockcache cached data dir filecache generic libarchive reference simplecache "
    "tar zip".split()
)
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_EXPECTED = (
    "expected a local path, or a URL such as s3://bucket/folder, gs://bucket/folder or https://host/file"
)


def is_local(url: str) -> bool:
    """Whether `url` is on this machine's filesystem."""
    return issubclass(find_kind(url), LocalFileSystem)


def is_local_filesystem(filesystem: Any) -> bool:
    """Whether a filesystem of fsspec is that of this machine."""
    return isinstance(filesystem, LocalFileSystem)


def resolve(url: str) -> str:
    """One spelling of a location, to compare locations.

    A local path is absolute, without `..` and symbolic links. Elsewhere, repeated slashes, `.`,
    `..` and a slash at the end do not count, since some stores ignore them, nor does an alias of
    the scheme (`s3a://`).
    """
    kind = find_kind(url)
    return (
        os.path.realpath(kind._strip_protocol(url)) if issubclass(kind, LocalFileSystem) else normalise(url)
    )


def normalise(url: str) -> str:
    """`resolve` of a remote URL."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return os.path.normpath(url)
    path = os.path.normpath("/" + url[scheme.end() :]).lstrip("/")
    return f"{_ALIASES.get(scheme[1], scheme[1])}://{path}"


def contains(folder: str, place: str) -> bool:
    """Whether a resolved location is `folder` or below it."""
    return place == folder or place.startswith(folder.rstrip("/") + "/")


def find_kind(url: str) -> Any:
    """The fsspec class for a URL.

    Raises:
        UserError: the URL contains credentials or a NUL character, or its scheme is unknown or
            needs another package.
    """
    if ":/" not in url and "\0" not in url:
        # Most calls: there is no scheme, and nothing to object to.
        return LocalFileSystem
    if match := _ONE_SLASH.match(url):
        # Else it names a local folder, and a password in it becomes the name of one.
        raise UserError(f"{redact(url)}: found {match[1]}:/; expected {match[1]}://, with two slashes")
    place = url.partition("?")[0]
    if _WITHOUT_CREDENTIALS.search(url) and redact(place) != place:
        raise UserError(
            f"{redact(url)}: found credentials in the URL; expected them where the store's own tools look "
            "(AWS_* in the environment, a profile, an instance role)"
        )
    if "\0" in url:
        shown = redact(url).replace("\0", r"\0")
        raise UserError(f"{shown}: found a NUL character in the name; expected none")
    scheme = _SCHEME.match(url)
    protocol = scheme[1] if scheme else "file"
    if protocol in _CHAINED:
        raise UserError(
            f"{redact(url)}: {protocol}:// is a file inside another file, which is not supported; {_EXPECTED}"
        )
    if protocol in MODULE_OF_SCHEME:
        require(MODULE_OF_SCHEME[protocol], redact(url))
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UserError(f"{redact(url)}: this kind of URL needs another package: {error}") from error
    except ValueError as error:
        raise UserError(f"{redact(url)}: not a URL that can be opened: {error}; {_EXPECTED}") from error


def open_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL and the path in it.

    `::` is two ordinary characters: fsspec would read it as a chain, and open another file.

    Raises:
        UserError: as for `find_kind`, or the filesystem does not accept the URL.
    """
    kind = find_kind(url)
    try:
        with translated(url):
            filesystem = kind(**{**kind._get_kwargs_from_urls(url), **_filesystem_options(url)})
            path = kind._strip_protocol(url)
    except (ImportError, ValueError, TypeError, FileNotFoundError) as error:
        raise UserError(
            f"{redact(url)}: not a URL that can be opened: {one_line(error)}; {_EXPECTED}"
        ) from error
    if hasattr(filesystem, "retries"):
        # Effective for s3fs. gcsfs fixes its six attempts when it is imported, so requests to gs://
        # are retried in both layers.
        filesystem.retries = 1
    return filesystem, str(path)


def _filesystem_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
    if split_query(url)[1]:
        # A signature may not survive decoding and encoding.
        options["encoded"] = True
    if url.startswith(S3_SCHEMES):
        # s3fs reads these variables itself. They are given here because fsspec keeps one instance
        # per set of options: a process that changes its endpoint needs another instance.
        options["endpoint_url"] = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options["config_kwargs"] = {
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "max_pool_connections": retries.requests(),
        }
        # This package splits objects into requests, each with its own retries.
        options["max_concurrency"] = 1
    return options
