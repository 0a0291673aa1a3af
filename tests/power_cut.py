"""A disk that loses what was not synced: records a run's writes, and rebuilds the disk as of any moment.

The model is worse than any filesystem. A file that was not synced is empty, cut short, full of zeros
or complete, whatever its name is. Each change of a folder (a new, renamed or deleted name) that was
not followed by a sync of that folder is lost or kept, each independently.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from d2prune.store import local_disk, writing

FOLDER = "folder"
DEAD = f"{local_disk._hash_namespace()}-999999999-1"
"""Stands for a process of this machine that has ended, in the names of temporary files."""


@dataclass(eq=False)
class File:
    """Content of a file: its last bytes, and the moment from which they are synced."""

    data: bytes = b""
    synced: float = float("inf")


class RecordingDisk:
    """Records what happens below `root` inside `recording`; `restore` puts the disk back as of a moment.

    Attributes:
        changes: folder -> [(moment, {name: File, FOLDER or None for a name that is removed})].
        syncs: folder -> moments of its syncs.
        n_events: number of events so far; moment m is right before event m.
    """

    def __init__(self, root: Path):
        self.root = root
        self.changes: dict[str, list] = {}
        self.syncs: dict[str, list[int]] = {}
        self.n_events = 0
        self._files: dict[str, File] = {}

    def restore(self, moment: int, rng) -> None:
        """Make `root` what a power cut right before event `moment` may leave of it."""
        shutil.rmtree(self.root)
        self._restore_folder(str(self.root), moment, rng, rng.choice((0.0, 0.2, 0.5, 0.8, 1.0)))

    def _restore_folder(self, folder, moment, rng, p_kept) -> None:
        os.makedirs(folder)
        synced = max((when for when in self.syncs.get(folder, ()) if when < moment), default=-1)
        names: dict[str, object] = {}
        for when, change in self.changes.get(folder, ()):
            if when < moment and (when < synced or rng.random() < p_kept):
                names |= change
        for name, value in names.items():
            path = os.path.join(folder, name)
            if value == FOLDER:
                self._restore_folder(path, moment, rng, p_kept)
            elif value is not None:
                Path(path).write_bytes(_lose(value, moment, rng))

    @contextlib.contextmanager
    def recording(self, monkeypatch):
        """Record the events of the block."""
        with monkeypatch.context() as patch:
            patch.setattr(local_disk, "_identify_process", lambda pid: DEAD)
            patch.setattr(writing, "open", self._open, raising=False)
            for name in ("fsync", "replace", "link", "unlink", "remove", "mkdir", "rmdir"):
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            yield

    def _open(self, path, mode="r", **options):
        stream = open(path, mode, **options)
        if mode != "rb" and str(path).startswith(str(self.root)):
            self._files[str(path)] = File()
            self._change({str(path): self._files[str(path)]})
        return stream

    def _fsync(self, fsync):
        def record(handle):
            path = os.readlink(f"/proc/self/fd/{handle}")
            fsync(handle)
            if path in self._files:
                self._files[path].data, self._files[path].synced = Path(path).read_bytes(), self._tick()
            elif os.path.isdir(path):
                self.syncs.setdefault(path, []).append(self._tick())

        return record

    def _replace(self, replace):
        def record(source, target):
            if source in self._files:
                self._read(source)
            replace(source, target)
            if source in self._files:
                self._files[target] = self._files.pop(source)
                self._change({source: None, target: self._files[target]})

        return record

    def _link(self, link):
        def record(source, target):
            link(source, target)
            if source in self._files:
                self._files[target] = self._files[source]
                self._change({target: self._files[target]})

        return record

    def _unlink(self, unlink):
        def record(path, **options):
            if path in self._files:
                self._read(path)
            unlink(path, **options)
            if self._files.pop(path, None) is not None:
                self._change({path: None})

        return record

    _remove = _unlink

    def _mkdir(self, mkdir):
        def record(path, *arguments, **options):
            mkdir(path, *arguments, **options)
            if str(path).startswith(str(self.root)):
                self._change({str(path): FOLDER})

        return record

    def _rmdir(self, rmdir):
        def record(path, **options):
            rmdir(path, **options)
            if str(path).startswith(str(self.root)):
                self._change({str(path): None})

        return record

    def _read(self, path) -> None:
        file = self._files[path]
        if file.synced == float("inf"):
            with contextlib.suppress(FileNotFoundError):
                file.data = Path(path).read_bytes()

    def _change(self, paths) -> None:
        """Record a change of names in one folder, which happens as a whole or not at all."""
        (folder,) = {os.path.dirname(path) for path in paths}
        names = {os.path.basename(path): value for path, value in paths.items()}
        self.changes.setdefault(folder, []).append((self._tick(), names))

    def _tick(self) -> int:
        self.n_events += 1
        return self.n_events - 1


def _lose(file: File, moment: int, rng) -> bytes:
    """What is left of a file."""
    if file.synced < moment:
        return file.data
    size = len(file.data)
    return rng.choice((b"", file.data[: rng.randrange(size + 1)], bytes(size), file.data))
