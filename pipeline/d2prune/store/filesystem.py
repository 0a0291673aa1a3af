"""The fsspec filesystem of a URL, opened without caches or fsspec retries."""

import os
import re
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from d2prune.errors import UserError
from d2prune.redaction import redact
from d2prune.store import retries
from d2prune.store.faults import translated
from d2prune.store.urls import S3_SCHEMES

# HTTP has users and passwords, and signed queries; the clients of the other stores ignore them.
_WITHOUT_CREDENTIALS = re.compile(r"(s3a?|gs|gcs|abfss?|wasbs?|az|adl)://", re.IGNORECASE)

_ONE_SLASH = re.compile(r"(s3a?|gs|gcs|https?|abfss?|wasbs?|az|adl):/(?!/)", re.IGNORECASE)


def is_local(url: str) -> bool:
    """Whether `url` is on this machine's filesystem."""
    return is_local_filesystem(open_filesystem(url)[0])


def is_local_filesystem(filesystem: Any) -> bool:
    """Whether a filesystem of fsspec is that of this machine."""
    return isinstance(filesystem, LocalFileSystem)


def resolve(url: str) -> str:
    """One spelling of a location, to compare locations: a local path is absolute, without links."""
    filesystem, path = open_filesystem(url)
    return os.path.realpath(path) if is_local_filesystem(filesystem) else redact(url).rstrip("/")


def open_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL and the path in it.

    Raises:
        UserError: the URL contains credentials, or its scheme is unknown or needs another package.
    """
    if match := _ONE_SLASH.match(url):
        # Else it names a local folder, and a password in it becomes the name of one.
        raise UserError(f"{redact(url)}: found {match[1]}:/; expected {match[1]}://, with two slashes")
    place = url.partition("?")[0]
    if _WITHOUT_CREDENTIALS.search(url) and redact(place) != place:
        raise UserError(
            f"{redact(url)}: found credentials in the URL; expected them where the store's own tools look "
            "(AWS_* in the environment, a profile, an instance role)"
        )
    try:
        # A chained URL opens the inner object here.
        with translated(url):
            filesystem, path = fsspec.core.url_to_fs(url, **_filesystem_options(url))
    except ImportError as error:
        raise UserError(f"{redact(url)}: this kind of URL needs another package: {error}") from error
    except ValueError as error:
        raise UserError(f"{redact(url)}: not a URL that can be opened: {error}") from error
    if hasattr(filesystem, "retries"):
        # Effective for s3fs. gcsfs fixes its six attempts when it is imported, so requests to gs://
        # are retried in both layers.
        filesystem.retries = 1
    return filesystem, str(path)


def _filesystem_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {"use_listings_cache": False}
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
