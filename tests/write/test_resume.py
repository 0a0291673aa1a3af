"""Kill the write stage at many moments, then resume: same bytes, no partial file, little repeated work."""

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from d2prune import store
from d2prune.output import byte_ranges, tar_stream
from d2prune.store import s3 as s3_requests
from tests.fault_proxy import FaultProxy
from tests.output.pools import build, plain_pool, tree
from tests.output.runs import write

MOMENTS = 12
TIMEOUT_S = 300
"""For a child process to end; far above what a busy machine needs."""


@pytest.fixture
def events(monkeypatch):
    """Count writes to the disk, and kill this process with SIGKILL at event number `kill_at`."""
    state = {"count": 0, "kill_at": None}

    def before(function):
        def counted(*args, **kwargs):
            state["count"] += 1
            if state["count"] == state["kill_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(byte_ranges, "BLOCK", 1)
    monkeypatch.setattr(tar_stream.TarStream, "put", before(tar_stream.TarStream.put))
    monkeypatch.setattr(os, "replace", before(os.replace))
    monkeypatch.setattr(os, "makedirs", before(os.makedirs))
    return state


def wait_for_exit(pid):
    """Return the exit code of a child process, -SIGABRT if it does not end in time."""
    timer = threading.Timer(TIMEOUT_S, os.kill, (pid, signal.SIGABRT))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        timer.cancel()


def run_in_child_killed_at(moment, events, work):
    pid = os.fork()
    if pid == 0:
        try:
            events["count"], events["kill_at"] = 0, moment
            work()
        finally:
            # Whatever happened, the child must not return to pytest.
            os._exit(0)
    return wait_for_exit(pid)


def test_a_run_killed_at_any_write_resumes(tmp_path, events):
    made = plain_pool(3, 20)
    kept = [[i % 2 == 0 for i in range(20)] for _ in range(3)]
    # The first write loads compiled code, and numba creates the folders of its cache.
    write(build(tmp_path / "first", plain_pool(1, 2), [[True, True]]), str(tmp_path / "first" / "out"))
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
        # The manifest lists the input tars: the runs share one pool, each has its own work_dir and output.
        pool = type(undisturbed)(**{**vars(undisturbed), "work_dir": str(folder / "work")})
        folder.joinpath("work").mkdir()
        for stage_name in ("embed", "select"):
            (folder / "work" / stage_name).symlink_to(Path(undisturbed.work_dir) / stage_name)
        out = folder / "out"
        code = run_in_child_killed_at(moment, events, lambda pool=pool, out=out: write(pool, str(out)))
        assert code == -signal.SIGKILL
        left = {name: data for name, data in tree(out).items() if not name.startswith(".tmp-d2prune-")}
        assert all(reference[name] == data for name, data in left.items())
        complete = sum(name.endswith("_stats.json") for name in left)
        _, done = write(pool, str(out))
        assert tree(out) == reference
        # At most the tar that was being written when the process was killed.
        tars_redone = sum(not key.startswith("decisions") for key in done)
        assert tars_redone <= 5 - complete + 1


def test_a_run_killed_at_any_s3_request_resumes(tmp_path, s3, monkeypatch):
    """Six runs are killed when half of a request's body has been sent, each at another request."""
    monkeypatch.setattr(s3_requests, "PART", 2**12)
    bucket = s3.make_bucket("resume")
    pool = build(
        tmp_path, plain_pool(2, 6), [[True] * 6] * 2, url=f"{bucket}/pool", work_dir=f"{bucket}/work"
    )
    served, out = s3.folder / "resume", f"{bucket}/out"

    def delete_output():
        for folder in (f"{bucket}/work/write", out):
            store.delete([file.url for file in store.list_files(folder)])

    with FaultProxy(s3.endpoint, every=10**9) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        write(pool, out, 4)
        total, reference = len(proxy.requests), tree(served / "out")
        assert total > 60
        for moment in random.Random(11).sample(range(1, total), 6):
            delete_output()
            go, ready = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.read(go, 1)
                with contextlib.suppress(BaseException):
                    write(pool, out, 4)
                os._exit(0)
            proxy.requests.clear()
            proxy.on_request = lambda number, pid=pid, moment=moment: (
                number == moment and os.kill(pid, signal.SIGKILL)
            )
            os.write(ready, b"x")
            assert wait_for_exit(pid) == -signal.SIGKILL
            proxy.on_request = lambda number: None
            os.close(go)
            os.close(ready)
            left = {name: data for name, data in tree(served / "out").items() if "partial" not in name}
            assert all(reference[name] == data for name, data in left.items())
            write(pool, out, 4)
            assert {n: d for n, d in tree(served / "out").items() if "partial" not in n} == reference
