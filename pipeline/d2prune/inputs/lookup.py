"""Files that `input` names one by one, and the check that no file is named twice."""

import posixpath
from collections.abc import Iterable, Sequence

from d2prune import store
from d2prune.errors import UserError
from d2prune.store import FileInfo, patterns

DATA_SUFFIXES = (".parquet", ".npz", ".npy", ".tar")

# Up to this many named files of one folder are asked for one by one; for more, the folder is listed once.
_MAX_LOOKUPS = 8
_MAX_ASKED_AGAIN = 32
_MAX_LISTED_URLS = 3


def suffix(file: FileInfo) -> str:
    """Return the suffix of a file's name, in lower case."""
    return posixpath.splitext(patterns.split_query(file.url)[0])[1].lower()


def find_named_files(urls: Sequence[str], text: str) -> list[FileInfo]:
    """Look up files by name, in the given order.

    Where a store does not list a folder (a web server, or S3 without the permission to list), its
    files are asked for one by one.

    Args:
        urls: of the files.
        text: the item of `input` that names them, for the error message.

    Raises:
        UserError: a file does not exist, or is a folder, a FIFO or a device.
    """
    by_folder: dict[str, list[str]] = {}
    for url in urls:
        by_folder.setdefault(patterns.split_query(url)[0].rpartition("/")[0], []).append(url)
    known: dict[str, FileInfo] = {}
    for folder, members in by_folder.items():
        known.update(_find_members(folder, members))
    absent = [url for url in urls if url not in known]
    if absent:
        of = "" if absent == [text] else f" (of {len(urls)} named by {store.redact(text)})"
        raise UserError(f"input {format_urls(absent)}: does not exist{of}")
    return [known[url] for url in urls]


def _find_members(folder: str, urls: Sequence[str]) -> dict[str, FileInfo]:
    # A listing has no `//` in its names.
    if len(urls) <= _MAX_LOOKUPS or not store.has_listings(folder) or "//" in folder.partition("://")[2]:
        return store.look_up(urls)
    try:
        listed = {posixpath.basename(file.url): file for file in store.list_files(folder or ".", "*")}
    except (UserError, NotImplementedError):
        return store.look_up(urls)
    found = {url: listed[name] for url in urls if (name := posixpath.basename(url)) in listed}
    absent = [url for url in urls if url not in found]
    if len(absent) <= _MAX_ASKED_AGAIN:
        # What is there but not a file has its own message, and hidden files are found by name only.
        found.update(store.look_up(absent))
    return found


def check_unique(files: Iterable[FileInfo]) -> None:
    """Check that no file is read twice, under whichever names.

    Names of one local file (symbolic and hard links, `..`, `//`) are recognised by the file. Remote
    names that differ in repeated slashes only are the same if size and version are, too.

    Raises:
        UserError: the message has both names.
    """
    seen: dict[object, str] = {}
    for file in files:
        key = file.file_id or (store.normalise(patterns.split_query(file.url)[0]), file.size, file.version)
        first = seen.setdefault(key, file.url)
        if first is not file.url:
            same = "" if first == file.url else f"{store.redact(first)} and "
            are = "would be read twice" if first == file.url else "are one file, which would be read twice"
            raise UserError(f"input: {same}{store.redact(file.url)} {are}")


def format_urls(urls: Sequence[str]) -> str:
    """The first few, for a message."""
    shown = ", ".join(store.redact(url) for url in urls[:_MAX_LISTED_URLS])
    return shown if len(urls) <= _MAX_LISTED_URLS else f"{shown} and {len(urls) - _MAX_LISTED_URLS} more"
