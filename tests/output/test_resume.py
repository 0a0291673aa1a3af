"""Killed at many moments, then run again: the same bytes, nothing partial under a final name, little redone."""

import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipeline.output import tar_stream
from tests.output.pools import build, plain_pool, tree
from tests.output.runs import write

MOMENTS = 12


@pytest.fixture
def events(monkeypatch):
    """Counts what touches the disk, and kills this process outright at the event `kill_at`."""
    state = {"count": 0, "kill_at": None}

    def before(function):
        def counted(*args, **kwargs):
            state["count"] += 1
            if state["count"] == state["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(tar_stream, "_FLUSH", 1)
    monkeypatch.setattr(tar_stream.TarStream, "_flush", before(tar_stream.TarStream._flush))
    monkeypatch.setattr(os, "replace", before(os.replace))
    monkeypatch.setattr(os, "makedirs", before(os.makedirs))
    return state


def in_child_killed_at(moment, events, work):
    pid = os.fork()
    if pid == 0:
        events["count"], events["kill_at"] = 0, moment
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_many_moments(tmp_path, events):
    made = plain_pool(3, 20)
    kept = [[i % 2 == 0 for i in range(20)] for _ in range(3)]
    undisturbed = build(tmp_path / "a", made, kept)
    events["count"] = 0
    write(undisturbed, str(tmp_path / "a" / "out"))
    total = events["count"]
    reference = tree(tmp_path / "a" / "out")
    assert total > 60
    for moment in random.Random(7).sample(range(1, total), MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        (folder / "a").symlink_to(tmp_path / "a")
        # The manifest names the input tars: the same pool for all, a work_dir and an output of their own.
        pool = type(undisturbed)(**{**vars(undisturbed), "work_dir": str(folder / "work")})
        folder.joinpath("work").mkdir()
        for stage_name in ("embed", "select"):
            (folder / "work" / stage_name).symlink_to(Path(undisturbed.work_dir) / stage_name)
        out = folder / "out"
        code = in_child_killed_at(moment, events, lambda pool=pool, out=out: write(pool, str(out)))
        assert code == -signal.SIGKILL
        left = {name: data for name, data in tree(out).items() if not name.startswith(".tmp-d2prune-")}
        assert all(reference[name] == data for name, data in left.items())
        whole = sum(name.endswith("_stats.json") for name in left)
        _, done = write(pool, str(out))
        assert tree(out) == reference
        # At most the tar that was being written when the process died.
        tars_redone = sum(not key.startswith("decisions") for key in done)
        assert tars_redone <= 5 - whole + 1


SCRIPT = """
    import pickle, sys
    from tests.output.runs import write
    with open(sys.argv[1], "rb") as stream:
        pool = pickle.load(stream)
    write(pool, sys.argv[2], int(sys.argv[3]))
"""


def test_killed_while_uploading_to_s3(tmp_path, s3):
    bucket = s3.make_bucket("resume")
    made = plain_pool(2, 40)
    kept = [[True] * 40] * 2
    pool = build(tmp_path, made, kept, url=f"{bucket}/pool", work_dir=f"{bucket}/work")
    write(pool, f"{bucket}/reference", 4)
    reference = tree(s3.folder / "resume" / "reference")
    (tmp_path / "pool.pickle").write_bytes(pickle.dumps(pool))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "pool.pickle")]
    root = Path(__file__).parents[2]
    killed = 0
    for attempt, seconds in enumerate([0.1, 0.3, 0.5]):
        out = s3.folder / "resume" / f"out{attempt}"
        with subprocess.Popen([*command, f"{bucket}/out{attempt}", "4"], cwd=root) as process:
            # Counted from the first object: the start of Python takes longer than the writing.
            while process.poll() is None and not (out.exists() and any(out.glob("*.tar"))):
                time.sleep(0.005)
            time.sleep(seconds)
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        for name, data in tree(out).items():
            if "partial" not in name:
                assert reference[name] == data, name
        write(pool, f"{bucket}/out{attempt}", 4)
        left = {name: data for name, data in tree(out).items() if "partial" not in name}
        assert left.keys() == reference.keys()
        # train.sh names its own URL, and the manifest has its checksum.
        assert all(left[name] == reference[name] for name in reference.keys() - {"train.sh", "manifest.json"})
    assert killed
