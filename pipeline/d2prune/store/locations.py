"""Checks of a location that a user names, before anything is read or written there."""

import contextlib
import os
import stat
from collections.abc import Iterator

from d2prune.errors import UserError
from d2prune.redaction import redact
from d2prune.store.faults import translated
from d2prune.store.filesystem import find_kind, is_local, open_filesystem
from d2prune.store.listing import read_local_status
from d2prune.store.local_listing import describe_kind

_OPEN_FILES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


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
    with _labelled(label):
        find_kind(url)


def check_readable(label: str, url: str) -> None:
    """`check_literal`, and that a local file can be read without waiting for a writer.

    A file that does not exist passes, since reading it reports that, and so does a pipe that is open
    already, as in `--config <(...)`.
    """
    check_literal(label, url)
    if is_local(url) and not url.startswith(_OPEN_FILES):
        with contextlib.suppress(FileNotFoundError), _labelled(label):
            read_local_status(url, open_filesystem(url)[1])


@contextlib.contextmanager
def _labelled(label: str) -> Iterator[None]:
    """Begin the message of a UserError with what the location is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{label} {error}") from error


def check_folder(label: str, url: str) -> None:
    """Check that a location is a folder, or nothing yet; see `check_literal`.

    Raises:
        UserError: as for `check_literal`; or it, or something above it, is a file.
    """
    check_literal(label, url)
    if is_local(url):
        _find_existing(label, url)


def check_writable(label: str, url: str) -> None:
    """`check_folder`, and that a local folder may be written to, or made."""
    check_literal(label, url)
    if is_local(url):
        existing = _find_existing(label, url)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"{label} {url}: no permission to write to {existing}")


def _find_existing(label: str, url: str) -> str:
    """The folder, or the nearest above it that exists."""
    existing = path = open_filesystem(url)[1]
    with _labelled(label), translated(url):
        while (status := _read_status(existing)) is None and existing not in ("", "/"):
            existing = os.path.dirname(existing)
    if status is None or not stat.S_ISDIR(status.st_mode):
        where = "" if existing == path else f"{existing} "
        raise UserError(f"{label} {url}: {where}is {describe_kind(status)}; expected a folder")
    return existing


def _read_status(path: str) -> os.stat_result | None:
    """The status of a path; None if there is nothing."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise UserError(f"{path}: found a symbolic link that leads nowhere; expected a folder") from None
        return None
