"""What exists: listings, and the size, version and age of objects."""

import contextlib
import fnmatch
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2prune.errors import UserError
from d2prune.redaction import redact
from d2prune.store import s3, s3_client
from d2prune.store.faults import translated
from d2prune.store.filesystem import is_local, is_local_filesystem, open_filesystem
from d2prune.store.local_disk import TEMPORARY
from d2prune.store.local_listing import FOLDER, describe_kind, walk
from d2prune.store.retries import request, retrying
from d2prune.store.urls import S3_SCHEMES


@dataclass(frozen=True)
class FileInfo:
    """One object of a listing.

    `version` changes when the content may have changed: the store's ETag, or else size and
    modification time. `file_id` is equal for two names of one local file (symbolic and hard links,
    `..`); empty elsewhere.
    """

    url: str
    size: int
    version: str
    file_id: str = field(default="", compare=False)


def info(url: str) -> FileInfo:
    """Size and version of an object.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is a folder, a FIFO or a device.
    """
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem):
        return to_local_info(path, read_local_status(url, path))
    entry = _read_entry(url)
    if entry["type"] == "directory":
        raise UserError(f"{redact(url)}: found a folder; expected a file")
    return _to_file_info(filesystem, entry)


def read_local_status(url: str, path: str) -> os.stat_result:
    """The status of a local file; raises what `info` does, since opening a FIFO would block."""
    with translated(url):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{redact(url)}: found {describe_kind(status)}; expected a file")
    return status


# Not with fsspec's isfile and isdir, which return False on any error.
def exists(url: str) -> bool:
    """Whether there is an object (not a folder) at `url`."""
    return _read_type(url) == "file"


def is_folder(url: str) -> bool:
    """Whether `url` is a folder, or a prefix with at least one object below it."""
    return _read_type(url) == "directory"


def describe(url: str) -> str | None:
    """What there is at `url`, for messages: `FOLDER`, a file, a FIFO, ...; None if there is nothing."""
    if is_local(url):
        path = open_filesystem(url)[1]
        with translated(url):
            try:
                return describe_kind(os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                return describe_kind(None) if os.path.islink(path) else None
    return {"directory": FOLDER, "file": "a file"}.get(_read_type(url) or "")


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

    Temporary files of interrupted writes are left out, and so are the folders that symbolic links
    point to (`list_entries` has the links).

    Args:
        folder: URL. Its name is literal, `*`, `?` and `[` included.
        pattern: of names below the folder, level by level, such as `*/manifest.json`. None: all
            objects at any depth.

    Returns:
        The objects; an empty list if the folder does not exist.
    """
    levels = pattern.split("/") if pattern is not None else None
    found = _list_below(folder, len(levels) if levels is not None else None)
    files = [file for name, file in found if not _is_temporary(name) and _matches(name, levels)]
    return sorted(files, key=lambda file: file.url)


def iterate_files(folder: str, levels: int) -> Iterator[tuple[str, int]]:
    """Name below a folder and size of each object `levels` levels below it, in any order.

    Unlike `list_files` it holds a page of a listing (S3) or a folder (local) at a time: a stage of a
    million units has three million files.

    Args:
        folder: URL; nothing if it does not exist.
        levels: 1 for objects directly in the folder.
    """
    if is_local(folder):
        path = open_filesystem(folder)[1]
        try:
            with translated(folder):
                for entry in walk(path, lambda name: name.count("/") + 2 <= levels, follow=False):
                    if entry.file_status and entry.name.count("/") + 1 == levels:
                        yield entry.name, entry.file_status.st_size
        except (FileNotFoundError, NotADirectoryError):
            return
        return
    found = list_s3(folder) if folder.startswith(S3_SCHEMES) else _list_below(folder, levels)
    try:
        for name, file in found:
            if name.count("/") + 1 == levels:
                yield name, file.size
    except FileNotFoundError:
        return


def _list_below(folder: str, depth: int | None) -> list[tuple[str, FileInfo]]:
    """Names relative to a folder, and the files; an empty list if it is not a folder."""
    try:
        if folder.startswith(S3_SCHEMES):
            return list(list_s3(folder))
        if is_local(folder):
            return _list_local(folder, depth)
        return list_with_fsspec(folder, depth)
    except FileNotFoundError:
        return []


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
            return sorted(name for name, _ in list_s3(folder))
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
def list_with_fsspec(folder: str, depth: int | None) -> list[tuple[str, FileInfo]]:
    """Names relative to a remote folder, and the files, at most `depth` levels below it."""
    filesystem, path = open_filesystem(folder)
    with request(folder):
        found = filesystem.find(path, maxdepth=depth, detail=True, **_walk_options(filesystem))
        # Over HTTP, find returns an empty entry for a file that is asked for as a folder.
        entries = list(filter(None, found.values()))
        names = [_relative(entry["name"], path) for entry in entries]
        files = [_to_file_info(filesystem, entry) if entry["type"] == "file" else None for entry in entries]
    return [(name, file) for name, file in zip(names, files, strict=True) if file is not None]


def _walk_options(filesystem: Any) -> dict[str, Any]:
    """Options that make a listing over HTTP report errors; by default, fsspec returns an empty one."""

    def check(error: Exception) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    return {"on_error": check} if "http" in filesystem.protocol else {}


@retrying
def _list_local(folder: str, depth: int | None) -> list[tuple[str, FileInfo]]:
    path = open_filesystem(folder)[1]
    with request(folder), contextlib.suppress(NotADirectoryError):
        entries = walk(path, lambda name: depth is None or name.count("/") + 2 <= depth, follow=False)
        files = ((entry, entry.file_status) for entry in entries)
        return [(entry.name, to_local_info(entry.path, status)) for entry, status in files if status]
    return []


def list_s3(folder: str, beginning: str = "") -> Iterable[tuple[str, FileInfo]]:
    """List page by page, so that a page that fails is retried alone.

    Args:
        folder: URL.
        beginning: of the names, relative to the folder.

    Yields:
        Names relative to the folder, and the objects.
    """
    call, bucket, key = s3_client.locate(folder)
    prefix = key and f"{key.rstrip('/')}/"
    for entry in s3.list_objects(call, bucket, prefix + beginning):
        if not entry["Key"].endswith("/"):
            yield entry["Key"].removeprefix(prefix), _s3_file_info(bucket, entry)


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


def _to_file_info(filesystem: Any, entry: dict[str, Any]) -> FileInfo:
    size = int(entry.get("size") or 0)
    version = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    if not version:
        stamp = entry.get("mtime") or entry.get("LastModified") or entry.get("created") or ""
        version = f"{size}-{stamp}"
    return FileInfo(filesystem.unstrip_protocol(entry["name"]), size, version)


def to_local_info(path: str, status: os.stat_result) -> FileInfo:
    """The entry of a local file."""
    node = f"{status.st_dev}-{status.st_ino}" if status.st_ino else path
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return FileInfo(path, status.st_size, version, f"{node}-{version}")
