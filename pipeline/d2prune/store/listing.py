"""What exists: listings, and the size, version and age of objects."""

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
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


def list_files(folder: str, pattern: str | None = None) -> list[FileInfo]:
    """All objects below a folder, sorted by URL.

    Temporary files of interrupted writes are left out, and so are symbolic links (`list_entries`
    has them).

    Args:
        folder: URL. Its name is literal, `*`, `?` and `[` included.
        pattern: of names below the folder, level by level, such as `*/manifest.json`. None: all
            objects at any depth.

    Returns:
        The objects; an empty list if the folder does not exist.
    """
    levels = pattern.split("/") if pattern is not None else None
    try:
        if folder.startswith(S3_SCHEMES):
            found = _list_s3(folder)
        else:
            found = _list_with_fsspec(folder, len(levels) if levels is not None else None)
        files = [file for name, file in found if not _is_temporary(name) and _matches(name, levels)]
    except FileNotFoundError:
        return []
    return sorted(files, key=lambda file: file.url)


def glob_files(url: str) -> list[FileInfo]:
    """The objects that match a pattern with `*` and `?`, sorted by URL. Only `input` has patterns.

    Returns:
        The objects, without temporary files; an empty list if none matches.
    """
    try:
        files = _glob_s3(url) if url.startswith(S3_SCHEMES) else _glob_with_fsspec(url)
        present = [file for file in files if not _is_temporary(file.url)]
    except FileNotFoundError:
        return []
    return sorted(present, key=lambda file: file.url)


def list_entries(folder: str) -> list[str]:
    """Names, relative to a folder, of everything below it except folders, sorted.

    Unlike `list_files` it includes temporary files, symbolic links (to folders, too, and dangling
    ones) and special files: whatever a write could overwrite or a deletion could miss.

    Args:
        folder: URL. Its name is literal, `*`, `?` and `[` included.

    Returns:
        The names; an empty list if the folder does not exist.
    """
    if folder.startswith(S3_SCHEMES):
        try:
            return sorted(name for name, _ in _list_s3(folder))
        except FileNotFoundError:
            return []
    return sorted(_find_entries(folder))


@retrying
def _find_entries(folder: str) -> list[str]:
    filesystem, path = open_filesystem(folder)
    with request(folder):
        if is_local_filesystem(filesystem):
            return list(_walk_local(path))
        return [_relative(name, path) for name in filesystem.find(path)]


def _walk_local(folder: str) -> Iterable[str]:
    def check(error: OSError) -> None:
        # A folder that cannot be read must not count as empty.
        if not isinstance(error, FileNotFoundError):
            raise error

    for path, folders, files in os.walk(folder, onerror=check):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in [*files, *links]:
            yield _relative(os.path.join(path, name), folder)


@retrying
def _list_with_fsspec(folder: str, depth: int | None) -> list[tuple[str, FileInfo]]:
    filesystem, path = open_filesystem(folder)
    with request(folder):
        found = filesystem.find(path, maxdepth=depth, detail=True, **_walk_options(filesystem))
        # Over HTTP, find returns an empty entry for a file that is asked for as a folder.
        entries = list(filter(None, found.values()))
        names = [_relative(entry["name"], path) for entry in entries]
        files = [_to_present_file(filesystem, entry) for entry in entries]
    return [(name, file) for name, file in zip(names, files, strict=True) if file is not None]


@retrying
def _glob_with_fsspec(url: str) -> list[FileInfo]:
    filesystem, path = open_filesystem(url)
    with request(url):
        options = _walk_options(filesystem) if "*" in path else {}
        entries = filesystem.glob(path, detail=True, **options).values()
        found = [_to_present_file(filesystem, entry) for entry in entries if entry]
    return [file for file in found if file is not None]


def _walk_options(filesystem: Any) -> dict[str, Any]:
    """Options that make a listing over HTTP report errors; by default, fsspec returns an empty one."""

    def check(error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return {"on_error": check} if "http" in filesystem.protocol else {}


def _list_s3(folder: str) -> Iterable[tuple[str, FileInfo]]:
    """List page by page, so that a page that fails is retried alone."""
    call, bucket, key = s3_client.locate(folder)
    prefix = key and f"{key.rstrip('/')}/"
    for entry in s3.list_objects(call, bucket, prefix):
        if not entry["Key"].endswith("/"):
            yield entry["Key"].removeprefix(prefix), _s3_file_info(bucket, entry)


def _glob_s3(url: str) -> Iterable[FileInfo]:
    call, bucket, key = s3_client.locate(url)
    pattern = re.compile(fsspec.utils.glob_translate(f"{bucket}/{key}"))
    for entry in s3.list_objects(call, bucket, re.split(r"[*?]", key, maxsplit=1)[0]):
        if not entry["Key"].endswith("/") and pattern.match(f"{bucket}/{entry['Key']}"):
            yield _s3_file_info(bucket, entry)


def _s3_file_info(bucket: str, entry: dict[str, Any]) -> FileInfo:
    version = str(entry.get("ETag", "")).strip('"')
    return FileInfo(f"s3://{bucket}/{entry['Key']}", int(entry["Size"]), version)


def _relative(name: str, folder: str) -> str:
    return name.removeprefix(folder).lstrip("/")


def _is_temporary(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(TEMPORARY)


def _matches(name: str, levels: Sequence[str] | None) -> bool:
    if levels is None:
        return True
    names = name.split("/")
    return len(names) == len(levels) and all(map(fnmatch.fnmatchcase, names, levels))


def _to_present_file(filesystem: Any, entry: dict[str, Any]) -> FileInfo | None:
    """The file of a listing; None for what is not a file, or vanished during the listing."""
    try:
        return _to_file_info(filesystem, entry) if entry["type"] == "file" else None
    except FileNotFoundError:
        return None


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
