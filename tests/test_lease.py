"""The lease of a work_dir: one holder, whatever the store can do; the dead are told from the living."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import BusyError
from d2prune.store import lease
from tests.s3 import moto_server

ROOT = Path(__file__).resolve().parents[1]
CONTENDER = """
import sys, time
from d2prune.store import lease
from d2prune.errors import BusyError
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease.hold(sys.argv[1], 20.0, 0.2):
        print("mine", flush=True)
        sys.stdin.readline()
except BusyError as error:
    print(f"busy {error}", flush=True)
"""


@pytest.fixture(scope="module")
def conditional():
    with moto_server() as server:
        yield server


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    with s3_server.serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "conditional", "unconditional"])
def place(request, tmp_path):
    """A URL in each kind of store; the last one ignores If-None-Match."""
    if request.param == "local":
        yield str(tmp_path / "work")
        return
    server = request.getfixturevalue(request.param)
    with s3_server.environment(server):
        server.make_bucket("bucket")
        assert store.honours_create("s3://bucket/probe") == (request.param == "conditional")
        yield f"s3://bucket/{tmp_path.name}"


def contend(place: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONTENDER, place]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def holders(folder: str) -> list[dict]:
    files = store.list_files(store.join(folder, lease.FOLDER, "*.json"))
    return [json.loads(store.read_bytes(file.url)) for file in files]


def forget_this_machine(monkeypatch):
    """As if the holder's process ran elsewhere, where it cannot be seen."""
    monkeypatch.setattr(lease.Holder, "alive", lambda self: None)


def test_of_two_at_the_same_moment_exactly_one_gets_it(place):
    processes = [contend(place) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    for process in processes:
        process.communicate("end\n", timeout=20)
    assert sorted(line.split()[0] for line in said) == ["busy", "mine"], said
    assert [(holder["token"], holder["released"]) for holder in holders(place)] == [(1, True)]


def test_threads_that_come_at_once(place, monkeypatch):
    forget_this_machine(monkeypatch)
    barrier, got, done = threading.Barrier(4), [], threading.Event()

    def take() -> None:
        barrier.wait()
        with contextlib.suppress(BusyError), lease.hold(place, 20.0, 0.1) as mine:
            got.append(mine.token)
            done.wait()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 15
    while sum(thread.is_alive() for thread in threads) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert got == [1]


def test_one_whose_view_is_old_finds_the_lease_taken(place, monkeypatch):
    with lease.hold(place):
        pass
    with lease.hold(place) as holder:
        # It listed the first holder's object, which was cleared away before it was read.
        look, views = lease._last, [None]
        monkeypatch.setattr(lease, "_last", lambda folder: views.pop() if views else look(folder))
        with pytest.raises(BusyError, match="another run is at work there"), lease.hold(place):
            pass
        holder.check()
        assert [found["token"] for found in holders(place)] == [holder.token] == [2]


def test_a_live_one_elsewhere_is_found_out_by_its_beat(place, monkeypatch):
    forget_this_machine(monkeypatch)
    with lease.hold(place, 20.0, 0.2):
        start = time.monotonic()
        with pytest.raises(
            BusyError, match=rf"work_dir {place}: another run is at work there \(process {os.getpid()}"
        ):
            with lease.hold(place, 20.0, 0.2):
                pass
        assert time.monotonic() - start < 5
    with lease.hold(place, 20.0, 0.2) as after:
        assert after.token == 2


def test_a_silent_one_is_taken_over_and_fenced(place, monkeypatch):
    forget_this_machine(monkeypatch)
    with lease.hold(place, ttl_s=2.0, renew_s=1000.0) as paused:
        with lease.hold(place, ttl_s=20.0, renew_s=0.2) as taker:
            assert taker.token == paused.token + 1
            with pytest.raises(BusyError, match="lease was taken over"):
                # It has been silent for more than half its time, so it asks.
                paused.check()
            taker.check()
        assert [holder["token"] for holder in holders(place)] == [2]
    assert holders(place)[0]["released"]


def test_one_that_was_killed_on_this_machine_does_not_keep_others_waiting(tmp_path):
    process = contend(str(tmp_path))
    process.stdin.write("go\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "mine\n"]
    with pytest.raises(BusyError), lease.hold(str(tmp_path)):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    start = time.monotonic()
    with lease.hold(str(tmp_path)) as mine:
        assert mine.token == 2
    assert time.monotonic() - start < 2


def test_an_interrupted_run_lets_go(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), lease.hold(str(tmp_path)):
        raise KeyboardInterrupt
    assert holders(str(tmp_path))[0]["released"]


def test_what_the_dead_left_at_the_door_is_swept(unconditional, monkeypatch):
    with s3_server.environment(unconditional):
        unconditional.make_bucket("bucket")
        store.write_bytes("s3://bucket/work/.lease/door/00000001-gone", b"")
        store.write_bytes("s3://bucket/work/.lease/door/drawing-gone", b"")
        with pytest.raises(BusyError, match="another run is starting there"), lease.hold("s3://bucket/work"):
            pass
        monkeypatch.setattr(lease, "_now", lambda folder, owner: time.time() + lease.TTL_S + 5)
        with lease.hold("s3://bucket/work"):
            pass
        assert not store.list_files("s3://bucket/work/.lease/door")


def test_create_makes_an_object_once(place):
    assert store.create(f"{place}/x", b"one")
    if store.honours_create(f"{place}/probe"):
        assert not store.create(f"{place}/x", b"two")
        assert store.read_bytes(f"{place}/x") == b"one"
