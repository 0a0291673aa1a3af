"""Checks of a location that a user names, before anything is read or written there."""

import os
import stat

from d2prune.errors import UserError
from d2prune.store.faults import translated
from d2prune.store.filesystem import is_local_filesystem, open_filesystem
from d2prune.store.local_listing import describe_kind
from d2prune.store.urls import redact


def check_literal(label: str, url: str) -> None:
    """Check that a location is one that can be opened, and not a list or a chain.

    Args:
        label: what messages call it, such as `output`.
        url: the location.

    Raises:
        UserError: it is empty, holds `::`, or cannot be opened by any filesystem.
    """
    if not url:
        raise UserError(f"{label}: expected a path or URL; got nothing")
    if "::" in url:
        raise UserError(
            f"{label} {redact(url)}: found `::`; expected one location, without lists and chains (only "
            "input may be a list)"
        )
    open_filesystem(url)


def check_folder(label: str, url: str) -> None:
    """Check that a folder exists or can be made; see `check_literal`.

    Raises:
        UserError: as for `check_literal`; or it, or a folder above it, is a file, or may not be
            written to.
    """
    check_literal(label, url)
    filesystem, path = open_filesystem(url)
    if not is_local_filesystem(filesystem):
        return
    existing = path
    with translated(url):
        while (status := _read_status(existing)) is None and existing not in ("", "/"):
            existing = os.path.dirname(existing)
    if status is None or not stat.S_ISDIR(status.st_mode):
        where = "" if existing == path else f"{existing} "
        raise UserError(f"{label} {url}: {where}is {describe_kind(status)}; expected a folder")
    if existing != path and not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{label} {url}: cannot be made: no permission to write to {existing}")


def check_writable(label: str, url: str) -> None:
    """`check_folder`, and that an existing local folder may be written to."""
    check_folder(label, url)
    filesystem, path = open_filesystem(url)
    if is_local_filesystem(filesystem) and os.path.isdir(path) and not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{label} {url}: no permission to write to this folder")


def _read_status(path: str) -> os.stat_result | None:
    """The status of a path; None if there is nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise UserError(f"{path}: found a symbolic link that leads nowhere; expected a folder") from None
        return None
