"""What exists: listings, and the size, version and age of objects."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fsspec.utils

from d2prune.store import s3, s3_client
from d2prune.store.filesystem import is_local_filesystem, open_filesystem
from d2prune.store.retries import request, retrying
from d2prune.store.urls import S3_SCHEMES

TEMPORARY = ".tmp-d2prune-"
"""Prefix of the names of files that are being written."""


@dataclass(frozen=True)
class FileInfo:
    """One object of a listing.

    `version` changes when the content may have changed: the store's ETag, or else size and
    modification time.
    """

    url: str
    size: int
    version: str


def info(url: str) -> FileInfo:
    """Size and version of an object.

    Raises:
        FileNotFoundError: there is none.
    """
    return _to_file_info(open_filesystem(url)[0], _read_entry(url))


# Not with fsspec's isfile and isdir, which return False on any error.
def exists(url: str) -> bool:
    """Whether there is an object (not a folder) at `url`."""
    return _read_type(url) == "file"


def is_folder(url: str) -> bool:
    """Whether `url` is a folder, or a prefix with at least one object below it."""
    return _read_type(url) == "directory"


def _read_type(url: str) -> str | None:
    try:
        return str(_read_entry(url)["type"])
    except FileNotFoundError:
        return None


@retrying
def _read_entry(url: str) -> dict[str, Any]:
    filesystem, path = open_filesystem(url)
    with request(url):
        return dict(filesystem.info(path))


@retrying
def modified(url: str) -> float:
    """Time when an object was written, in seconds, as its store records it.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem, path = open_filesystem(url)
    with request(url):
        return float(filesystem.modified(path).timestamp())


def list_files(url: str) -> list[FileInfo]:
    """All objects below a folder, or matching a glob, sorted by URL.

    Temporary files of interrupted writes are left out.

    Returns:
        The objects; an empty list if the folder does not exist.
    """
    try:
        files = _list_s3(url) if url.startswith(S3_SCHEMES) else _list_with_fsspec(url)
    except FileNotFoundError:
        return []
    return sorted((file for file in files if TEMPORARY not in file.url), key=lambda file: file.url)


@retrying
def _list_with_fsspec(url: str) -> Iterable[FileInfo]:
    filesystem, path = open_filesystem(url)
    with request(url):
        found = filesystem.glob(path, detail=True) if _is_glob(url) else filesystem.find(path, detail=True)
        return [_to_file_info(filesystem, entry) for entry in found.values() if entry["type"] == "file"]


def _list_s3(url: str) -> Iterable[FileInfo]:
    """List page by page, so that a page that fails is retried alone."""
    call, bucket, key = s3_client.locate(url)
    pattern = re.compile(fsspec.utils.glob_translate(f"{bucket}/{key}")) if _is_glob(url) else None
    prefix = re.split(r"[*?]", key, maxsplit=1)[0] if pattern is not None else key and f"{key.rstrip('/')}/"
    return [
        FileInfo(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), str(entry.get("ETag", "")).strip('"'))
        for entry in s3.list_objects(call, bucket, prefix)
        if not entry["Key"].endswith("/") and (pattern is None or pattern.match(f"{bucket}/{entry['Key']}"))
    ]


def _is_glob(url: str) -> bool:
    return "*" in url or "?" in url


def _to_file_info(filesystem: Any, entry: dict[str, Any]) -> FileInfo:
    size = int(entry.get("size") or 0)
    version = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    if not version:
        stamp = entry.get("mtime") or entry.get("LastModified") or entry.get("created") or ""
        version = f"{size}-{stamp}"
    name = entry["name"]
    if is_local_filesystem(filesystem):
        version = f"{size}-{os.stat(name).st_mtime_ns}"
    else:
        name = filesystem.unstrip_protocol(name)
    return FileInfo(url=name, size=size, version=version)
