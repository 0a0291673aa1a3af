"""The S3 server on loopback: it serves objects, checks keys and stops."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import s3fs

from d2prune import store
from d2prune.demo import s3_server
from d2prune.errors import UserError


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_objects_ranges_and_wrong_keys(tmp_path, monkeypatch):
    with s3_server.serve(tmp_path / "served") as server, s3_server.environment(server):
        url = store.join(server.make_bucket("pool"), "a", "b.bin")
        store.write_bytes(url, bytes(range(200)))
        assert store.read_bytes(url) == bytes(range(200))
        assert store.read_range(url, 3, 4) == bytes([3, 4, 5, 6])
        assert [file.url for file in store.list_files("s3://pool")] == [url]
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(UserError):
            store.read_bytes(url)
        s3fs.S3FileSystem.clear_instance_cache()
        pid = server.pid
    assert not alive(pid)
    assert os.environ.get("AWS_ENDPOINT_URL") != server.endpoint


def test_server_stops_when_the_block_raises(tmp_path):
    with pytest.raises(RuntimeError), s3_server.serve(tmp_path) as server:
        raise RuntimeError
    assert not alive(server.pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the death signal is Linux's")
def test_server_ends_when_its_owner_is_killed(tmp_path):
    script = (
        "import sys, time\nfrom d2prune.demo import s3_server\n"
        "with s3_server.serve(sys.argv[1]) as server:\n"
        "    print(server.pid, flush=True)\n    time.sleep(60)\n"
    )
    root = Path(s3_server.__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as owner:
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
