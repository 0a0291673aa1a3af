"""The lease of a work_dir: one holder on every kind of store, takeover from dead ones only."""

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
from d2prune.store import lease, lease_record
from tests.s3 import moto_server

ROOT = Path(__file__).resolve().parents[2]
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
def url(request, tmp_path):
    """A URL in each kind of store; the last kind ignores If-None-Match."""
    if request.param == "local":
        yield str(tmp_path / "work")
        return
    server = request.getfixturevalue(request.param)
    with s3_server.environment(server):
        server.make_bucket("bucket")
        assert store.supports_create("s3://bucket/probe") == (request.param == "conditional")
        yield f"s3://bucket/{tmp_path.name}"


def contend(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONTENDER, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def read_records(folder: str) -> list[dict]:
    files = store.list_files(store.join(folder, lease.FOLDER), "*.json")
    return [json.loads(store.read_bytes(file.url)) for file in files]


def hide_processes(monkeypatch):
    """As if the holder ran on another machine, where its process cannot be seen."""
    monkeypatch.setattr(lease_record.Holder, "alive", lambda self: None)


def test_of_two_simultaneous_processes_exactly_one_gets_the_lease(url):
    processes = [contend(url) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline() for process in processes]
    for process in processes:
        process.communicate("end\n", timeout=20)
    assert sorted(line.split()[0] for line in said) == ["busy", "mine"], said
    assert [(holder["token"], holder["released"]) for holder in read_records(url)] == [(1, True)]


def test_of_four_simultaneous_threads_exactly_one_gets_the_lease(url, monkeypatch):
    hide_processes(monkeypatch)
    barrier, got, done = threading.Barrier(4), [], threading.Event()

    def take() -> None:
        barrier.wait()
        with contextlib.suppress(BusyError), lease.hold(url, 20.0, 0.1) as mine:
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


def test_a_contender_with_an_outdated_listing_finds_the_lease_taken(url, monkeypatch):
    with lease.hold(url):
        pass
    with lease.hold(url) as holder:
        # It listed the record of the first holder, which was deleted before it was read.
        read_latest, views = lease_record.read_latest, [None]
        monkeypatch.setattr(
            lease_record, "read_latest", lambda folder: views.pop() if views else read_latest(folder)
        )
        with pytest.raises(BusyError, match="another run is in progress there"), lease.hold(url):
            pass
        holder.check()
        assert [found["token"] for found in read_records(url)] == [holder.token] == [2]


def test_a_live_holder_elsewhere_is_recognised_by_its_renewals(url, monkeypatch):
    hide_processes(monkeypatch)
    with lease.hold(url, 20.0, 0.2):
        start = time.monotonic()
        with pytest.raises(
            BusyError, match=rf"work_dir {url}: another run is in progress there \(process {os.getpid()}"
        ):
            with lease.hold(url, 20.0, 0.2):
                pass
        assert time.monotonic() - start < lease.TTL_S / 20
    with lease.hold(url, 20.0, 0.2) as after:
        assert after.token == 2


def test_a_silent_holder_is_taken_over_and_fenced(url, monkeypatch):
    hide_processes(monkeypatch)
    with lease.hold(url, ttl_s=2.0, renew_s=1000.0) as paused:
        with lease.hold(url, ttl_s=20.0, renew_s=0.2) as taker:
            assert taker.token == paused.token + 1
            with pytest.raises(BusyError, match="lease was taken over"):
                # It has not renewed for more than half of its time, so it reads the record.
                paused.check()
            taker.check()
        assert [holder["token"] for holder in read_records(url)] == [2]
    assert read_records(url)[0]["released"]


def test_the_lease_of_a_process_killed_on_this_machine_is_taken_at_once(tmp_path):
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
    assert time.monotonic() - start < lease.TTL_S / 2


def test_an_interrupted_run_releases_the_lease(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), lease.hold(str(tmp_path)):
        raise KeyboardInterrupt
    assert read_records(str(tmp_path))[0]["released"]


def test_objects_that_dead_contenders_left_are_swept(unconditional, monkeypatch):
    with s3_server.environment(unconditional):
        unconditional.make_bucket("bucket")
        store.write_bytes("s3://bucket/work/.lease/door/00000001-gone", b"")
        store.write_bytes("s3://bucket/work/.lease/door/drawing-gone", b"")
        with pytest.raises(BusyError, match="another run is starting there"), lease.hold("s3://bucket/work"):
            pass
        monkeypatch.setattr(lease_record, "store_time", lambda folder, owner: time.time() + lease.TTL_S + 5)
        with lease.hold("s3://bucket/work"):
            pass
        assert not store.list_files("s3://bucket/work/.lease/door")


def test_create_writes_an_object_once(url):
    assert store.create(f"{url}/x", b"one")
    if store.supports_create(f"{url}/probe"):
        assert not store.create(f"{url}/x", b"two")
        assert store.read_bytes(f"{url}/x") == b"one"
