"""Changes of the local disk that survive a power cut, in the order in which they must survive it.

A power cut may undo what was not synced, each file and each name independently: a file written but
not synced is empty, shorter, or full of zeros, and a name that was given by a rename is lost unless
its folder was synced. So the content of every file is synced before the file gets its name, and
everything that a marker of completeness (a receipt, a manifest) names is synced before the marker
gets its own.

Deletions are not synced: after a power cut a deleted file may be back.
"""

import enum
import errno
import functools
import hashlib
import os
import threading
import uuid
from typing import IO, Any

from d2prune.store.processes import process_namespace, start_time

TEMPORARY = ".tmp-d2prune-"
"""Prefix of the names of files that are being written."""

# What filesystems without this kind of fsync answer: some network and FUSE filesystems, for folders.
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
# A folder that was empty may be removed by another process, and one may be writable but not readable.
_NOT_OPENED = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM}

_unsynced: set[str] = set()
"""Folders in which this process has given names that are not synced."""
_lock = threading.Lock()


class Sync(enum.Enum):
    """When a local file must survive a power cut."""

    NEVER = "never"
    """What is cheap to lose and recognised if damaged: checkpoints, probes of the clock."""

    LATER = "later"
    """Its content before it gets its name; the name no later than this process's next `COMMIT`."""

    COMMIT = "commit"
    """When the write returns, with everything that this process wrote `LATER` before it."""


def name_temporary(folder: str) -> str:
    """Path of a new temporary file; named for the process that writes it."""
    return os.path.join(folder, f"{TEMPORARY}{_identify_process(os.getpid())}-{uuid.uuid4().hex}")


@functools.cache
def _identify_process(pid: int) -> str:
    return f"{_hash_namespace()}-{pid}-{start_time(pid) or 0}"


@functools.cache
def _hash_namespace() -> str:
    """Identity of this machine since it booted; `x` where it is unknown."""
    namespace = process_namespace()
    return hashlib.blake2b(namespace.encode(), digest_size=6).hexdigest() if namespace else "x"


def is_writer_alive(name: str) -> bool | None:
    """Whether the process that writes a temporary file runs; None if this machine cannot know.

    Args:
        name: of the file, from `name_temporary`.
    """
    fields = name.removeprefix(TEMPORARY).split("-")
    if len(fields) != 4 or fields[0] != _hash_namespace() or fields[0] == "x":
        return None
    _, pid, started, _ = fields
    return start_time(int(pid)) == int(started) if pid.isdecimal() and started.isdecimal() else None


def make_folders(folder: str) -> None:
    """Make a folder and its parents; the next `COMMIT` syncs the names of new ones."""
    missing = []
    path = os.path.abspath(folder)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        missing.append(path)
        path = os.path.dirname(path)
    if missing:
        os.makedirs(folder, exist_ok=True)
        with _lock:
            _unsynced.update(map(os.path.dirname, missing))


def sync_file(stream: IO[Any]) -> None:
    """Sync what was written to an open file."""
    stream.flush()
    _sync(stream.fileno())


def rename(temporary: str, path: str, sync: Sync) -> None:
    """Give a file its name; unless `sync` is `NEVER`, its content must be synced."""
    if sync is Sync.COMMIT:
        _sync_folders()
    os.replace(temporary, path)
    if sync is not Sync.NEVER:
        with _lock:
            _unsynced.add(os.path.dirname(os.path.abspath(path)))
    if sync is Sync.COMMIT:
        _sync_folders()


def _sync_folders() -> None:
    # Held while syncing: another thread's marker must wait until the names that it needs are synced.
    with _lock:
        for folder in sorted(_unsynced):
            _sync_folder(folder)
            _unsynced.discard(folder)


def _sync_folder(folder: str) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _UNSUPPORTED | _NOT_OPENED:
            return
        raise
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
