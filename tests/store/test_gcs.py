"""`gs://` through gcsfs, on an emulator of Google's storage protocol."""

import json
import logging
import subprocess
import sys
import urllib.request
from pathlib import Path

import fsspec
import pytest

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import subset
from d2prune.reshard.reshard import reshard
from d2prune.verify import folder
from tests.output.pools import plain_pool, put_pool, tree

SERVER = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def endpoint():
    """A fresh server with one bucket; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = next(int(line) for line in process.stdout if line.strip().isdecimal())
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/storage/v1/b?project=p",
            data=json.dumps({"name": "bucket"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def bucket(endpoint, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    # Without credentials it cannot look up the bucket's kind, and warns at every call.
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    yield
    fsspec.get_filesystem_class("gs").clear_instance_cache()


def test_reads_back_what_was_written():
    data = bytes(range(256)) * 40_000
    store.write_bytes("gs://bucket/a/b.bin", data[:1000])
    with store.writer("gs://bucket/a/c.bin") as stream:
        stream.write(data)
    assert store.read_bytes("gs://bucket/a/c.bin") == data
    assert store.read_range("gs://bucket/a/b.bin", 300, 77) == data[300:377]
    with store.open_read("gs://bucket/a/c.bin") as stream:
        assert stream.read() == data
    listed = store.list_files("gs://bucket/a"), store.list_files("gs://bucket/a", "*.bin")
    for files in (*listed, store.find_files("gs://bucket/a/*.bin", ())):
        found = [(file.url, file.size) for file in files]
        assert found == [("gs://bucket/a/b.bin", 1000), ("gs://bucket/a/c.bin", len(data))]
    assert store.list_entries("gs://bucket/a") == ["b.bin", "c.bin"]
    assert store.exists("gs://bucket/a/b.bin") and not store.exists("gs://bucket/a")
    assert store.is_folder("gs://bucket/a")
    before = store.info("gs://bucket/a/b.bin").version
    store.write_bytes("gs://bucket/a/b.bin", data[1:1001])
    assert store.info("gs://bucket/a/b.bin").version != before
    store.delete(["gs://bucket/a/b.bin", "gs://bucket/a/b.bin"])
    assert not store.exists("gs://bucket/a/b.bin")
    with pytest.raises(FileNotFoundError, match="gs://bucket/a/none: not found"):
        store.read_bytes("gs://bucket/a/none")


def test_reshard_and_verify_work_as_on_a_disk(tmp_path):
    made = plain_pool(3, 12)
    put_pool(tmp_path / "pool", made)
    put_pool(tmp_path / "again", made, url="gs://bucket/pool")
    wanted = subset.encode([sample.uid for shard in made for sample in shard[::2]])
    (tmp_path / "subset.npy").write_bytes(subset.to_bytes(wanted))
    reshard(str(tmp_path / "pool"), str(tmp_path / "subset.npy"), str(tmp_path / "out"))
    reshard("gs://bucket/pool", str(tmp_path / "subset.npy"), "gs://bucket/out")
    here = tree(tmp_path / "out")
    for name in sorted(here):
        if name.endswith((".tar", ".npy")) or name[0].isdigit():
            assert store.read_bytes(f"gs://bucket/out/{name}") == here[name], name
    assert folder.verify("gs://bucket/out", full=True) == []
    with pytest.raises(UserError, match="holds another run's data"):
        reshard(f"{Path(tmp_path)}/pool/00000000.tar", str(tmp_path / "subset.npy"), "gs://bucket/out")
