"""Temporary files: those of ended processes are removed, those of live ones stay."""

import os
import subprocess
import time

import pytest

from d2prune import store
from d2prune.store import local_disk, sweeping
from tests.power_cut import DEAD

OWN = local_disk._identify_process(os.getpid())
HOST, PID, STARTED = OWN.split("-")
FRESH, OLD = 0.0, sweeping.STALE_S + 60
KINDS = {
    "of an ended process": (f"{DEAD}-1f", FRESH, True),
    "of a process id that is used again": (f"{HOST}-{PID}-{int(STARTED) - 1}-1f", FRESH, True),
    "of this process": (f"{OWN}-1f", OLD, False),
    "of another machine": ("0123456789ab-1-1-1f", FRESH, False),
    "of another machine, old": ("0123456789ab-1-1-1f", OLD, True),
    "of another version": ("dead", FRESH, False),
    "of another version, old": ("dead", OLD, True),
    "odd": (f"{HOST}-x-y-1f", FRESH, False),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", [".", "embed/units/x", ".lease/clock"])
def test_a_temporary_file_is_removed_if_nobody_writes_it(tmp_path, kind, folder):
    name, age_s, removed = KINDS[kind]
    path = tmp_path / folder / f"{store.TEMPORARY}{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age_s,) * 2)
    (tmp_path / folder / f"x{store.TEMPORARY}{DEAD}-1f").write_bytes(b"foreign")
    assert store.sweep_temporaries(str(tmp_path)) == removed
    assert path.exists() != removed
    assert (tmp_path / folder / f"x{store.TEMPORARY}{DEAD}-1f").exists()


def test_only_the_folder_itself_is_swept_on_demand(tmp_path):
    for folder in (tmp_path, tmp_path / "run"):
        folder.mkdir(exist_ok=True)
        (folder / f"{store.TEMPORARY}{DEAD}-1f").touch()
    assert store.sweep_temporaries(str(tmp_path), recursive=False) == 1
    assert store.list_entries(str(tmp_path)) == [f"run/{store.TEMPORARY}{DEAD}-1f"]


def test_a_write_in_progress_stays_until_its_process_ends(tmp_path):
    with store.writer(str(tmp_path / "object")) as stream:
        stream.write(b"x")
        assert store.sweep_temporaries(str(tmp_path)) == 0
    child = subprocess.Popen(["sleep", "60"])
    name = f"{store.TEMPORARY}{HOST}-{child.pid}-{local_disk.start_time(child.pid)}-1f"
    (tmp_path / name).touch()
    assert store.sweep_temporaries(str(tmp_path)) == 0
    child.kill()
    child.wait()
    assert store.sweep_temporaries(str(tmp_path)) == 1
    assert store.list_entries(str(tmp_path)) == ["object"]
