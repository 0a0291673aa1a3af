"""What a local folder holds, with symbolic links followed or not."""

import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)


FOLDER = "a folder"


@dataclass(frozen=True)
class LocalEntry:
    """What is not a folder in a listing.

    Attributes:
        name: relative to the listed folder.
        path: complete.
        status: of the file, or of what the link points to; None for a link that cannot be followed.
    """

    name: str
    path: str
    status: os.stat_result | None

    @property
    def file_status(self) -> os.stat_result | None:
        """The status of what can be read as a file; None for anything else."""
        return self.status if self.status is not None and stat.S_ISREG(self.status.st_mode) else None

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return describe_kind(self.status)


def describe_kind(status: os.stat_result | None) -> str:
    """What a path is, for messages."""
    if status is None:
        return "a symbolic link that cannot be followed"
    kinds = {
        stat.S_IFDIR: FOLDER,
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "a file")


def walk(folder: str, enter: Callable[[str], bool], follow: bool) -> Iterator[LocalEntry]:
    """List a folder, in no order.

    Args:
        folder: an absolute path.
        enter: whether to list a folder below it, by its relative name.
        follow: whether to list the folders that symbolic links point to. A link to a folder that
            contains it is left out, with a warning.

    Raises:
        OSError: a folder cannot be read. Files that vanish during the listing are left out.
    """
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identify(os.stat(folder)),))]
    while pending:
        prefix, above = pending.pop()
        try:
            with os.scandir(os.path.join(folder, prefix) if prefix else folder) as entries:
                found = list(entries)
        except FileNotFoundError:
            if not prefix:
                raise
            continue
        for entry in found:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            is_link = entry.is_symlink()
            try:
                # The kernel gives the kind of an entry with its name, so folders need no request here.
                if not is_link and entry.is_dir(follow_symlinks=False):
                    if enter(name):
                        pending.append((name, (*above, _identify(entry.stat()))))
                    continue
                status = os.stat(entry.path)
            except OSError as error:
                if is_link:
                    yield LocalEntry(name, entry.path, None)
                elif not isinstance(error, FileNotFoundError):
                    raise
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield LocalEntry(name, entry.path, status)
            elif follow and enter(name):
                if _identify(status) in above:
                    log.warning("%s: a symbolic link to a folder that contains it; left out", entry.path)
                else:
                    pending.append((name, (*above, _identify(status))))


def _identify(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
