"""What is synced, and in which order; and that the disk of `tests/power_cut.py` loses what is not."""

import errno
import os
import random

import pytest

from d2prune import store
from d2prune.errors import D2PruneError
from d2prune.store import Sync, artifacts, local_disk
from tests.power_cut import RecordingDisk


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    local_disk._unsynced.clear()
    return RecordingDisk(tmp_path / "disk")


def survivors(disk, moment, tries=20):
    """The contents of the disk that power cuts at a moment may leave, by name."""
    found = []
    for seed in range(tries):
        disk.restore(moment, random.Random(seed))
        names = store.list_entries(str(disk.root))
        found.append({name: (disk.root / name).read_bytes() for name in names})
    return found


def test_what_is_committed_survives_and_so_does_everything_before_it(disk, monkeypatch):
    root = str(disk.root)
    with disk.recording(monkeypatch):
        store.write_bytes(f"{root}/a/b/part", b"x" * 1000, Sync.LATER)
        store.write_bytes(f"{root}/other/part", b"y" * 1000, Sync.LATER)
        store.write_bytes(f"{root}/c/marker", b"z" * 1000)
    expected = {"a/b/part": b"x" * 1000, "other/part": b"y" * 1000, "c/marker": b"z" * 1000}
    assert all(left == expected for left in survivors(disk, disk.n_events))
    for moment in range(disk.n_events):
        for left in survivors(disk, moment, 5):
            named = {name: data for name, data in left.items() if store.TEMPORARY not in name}
            assert named.items() <= expected.items()
            assert "c/marker" not in named or named == expected


@pytest.mark.parametrize("lost", ["file", "folder"])
def test_the_disk_loses_what_is_not_synced(disk, monkeypatch, lost):
    """Without the sync of files or of folders, the test above finds damage."""
    sync = local_disk._sync_folder if lost == "folder" else local_disk.sync_file
    name = sync.__name__
    monkeypatch.setattr(local_disk, name, lambda target: None)
    with disk.recording(monkeypatch):
        store.write_bytes(f"{disk.root}/part", b"x" * 1000, Sync.LATER)
        store.write_bytes(f"{disk.root}/marker", b"z" * 1000)
    expected = {"part": b"x" * 1000, "marker": b"z" * 1000}
    assert any(left != expected for left in survivors(disk, disk.n_events))


def test_a_unit_costs_one_sync_per_file_and_two_per_folder(disk, monkeypatch):
    synced = []
    with monkeypatch.context() as patch:
        fsync = os.fsync
        patch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle)), fsync(handle)))
        artifacts.commit_unit(f"{disk.root}/embed", "first", {"a": b"1", "b": b"2"})
        first, _ = len(synced), synced.clear()
        artifacts.commit_unit(f"{disk.root}/embed", "second", {"a": b"1", "b": b"2"})
    # Three files; the unit's folder before and after the receipt; the parents of new folders.
    assert (first, len(synced)) == (3 + 2 + 3, 3 + 2 + 1)


def test_what_may_be_lost_is_not_synced(disk, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("synced"))
    store.write_bytes(f"{disk.root}/checkpoint", b"x", Sync.NEVER)


def fail_with(number, on_folders):
    fsync = os.fsync

    def fail(handle):
        if os.path.isdir(os.readlink(f"/proc/self/fd/{handle}")) == on_folders:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
@pytest.mark.parametrize("on_folders", [True, False])
def test_filesystems_without_fsync_are_tolerated(disk, monkeypatch, number, on_folders):
    monkeypatch.setattr(os, "fsync", fail_with(number, on_folders))
    store.write_bytes(f"{disk.root}/new/object", b"x")
    assert store.read_bytes(f"{disk.root}/new/object") == b"x"


def test_a_folder_that_cannot_be_opened_or_is_gone_is_tolerated(disk, monkeypatch):
    store.write_bytes(f"{disk.root}/gone/object", b"x", Sync.LATER)
    os.unlink(disk.root / "gone" / "object")
    os.rmdir(disk.root / "gone")
    store.write_bytes(f"{disk.root}/object", b"x")
    assert not local_disk._unsynced


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_cannot_be_synced_does_not_get_its_name(disk, monkeypatch, number):
    url = f"{disk.root}/object"
    store.write_bytes(url, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_with(number, on_folders=False))
        with pytest.raises(D2PruneError, match=url):
            store.write_bytes(url, b"new")
    assert store.read_bytes(url) == b"old" and store.list_entries(str(disk.root)) == ["object"]
