"""Requests of the S3 protocol that fsspec does not offer, made through s3fs with retries."""

import functools
from typing import Any

from d2prune.store import s3
from d2prune.store.filesystem import open_filesystem
from d2prune.store.retries import request, retrying


def locate(url: str) -> tuple[s3.Call, str, str]:
    """What `store.s3` needs to work on `url`: a function for requests, the bucket, the key."""
    filesystem, path = open_filesystem(url)
    bucket, key, _ = filesystem.split_path(path)
    return functools.partial(_call, url), bucket, key


@retrying
def _call(url: str, operation: str, **parameters: Any) -> dict[str, Any]:
    filesystem, _ = open_filesystem(url)
    with request(url):
        return dict(filesystem.call_s3(operation, **parameters))
