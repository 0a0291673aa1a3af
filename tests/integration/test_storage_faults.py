"""Every seventh request to S3 fails, stalls or is cut short, and the output has the same bytes."""

import shutil
from pathlib import Path

import pytest
import s3fs

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.demo import s3_server
from d2prune.execution import InProcess
from d2prune.reshard import reshard
from d2prune.runs.driver import run
from d2prune.store import read_ahead, retries, s3
from d2prune.verify import folder
from tests.fault_proxy import KINDS, FaultProxy
from tests.pools import tree


@pytest.fixture
def served(tmp_path, pool, monkeypatch):
    """The pool on S3, with small parts and blocks so that there are many requests."""
    monkeypatch.setattr(s3, "PART", 2**15)
    monkeypatch.setattr(read_ahead, "BLOCK", 2**15)
    monkeypatch.setattr(retries, "_PAUSE_S", 0.02)
    with s3_server.serve(tmp_path / "served") as server, s3_server.environment(server):
        bucket = server.make_bucket("bucket")
        for path in sorted(Path(pool).glob("*.tar")):
            (server.folder / "bucket" / "pool").mkdir(exist_ok=True)
            shutil.copyfile(path, server.folder / "bucket" / "pool" / path.name)
        yield server, bucket
    s3fs.S3FileSystem.clear_instance_cache()


def run_with_faults(server, monkeypatch, work):
    with FaultProxy(server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        work()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    assert set(proxy.spoiled) == set(KINDS)
    return proxy


def test_run_and_reshard_write_the_same_bytes_despite_faults(served, settings, tmp_path, monkeypatch):
    server, bucket = served
    config = RunConfig.parse(
        settings | {"input": f"{bucket}/pool", "work_dir": f"{bucket}/work", "output": f"{bucket}/out"},
        "test",
    )
    root = server.folder / "bucket"

    def run_filter():
        run(config, InProcess(), "write")

    def run_reshard():
        reshard.reshard(
            f"{bucket}/pool",
            f"{bucket}/out/subset.npy",
            f"{bucket}/re",
            reshard.ReshardParams(7),
            f"{bucket}/index",
        )

    for work, folders in ((run_filter, ("work", "out")), (run_reshard, ("index", "re"))):
        work()
        expected = {name: tree(root / name) for name in folders}
        for name in folders:
            # Through the server, which caches listings.
            store.delete([file.url for file in store.list_files(f"{bucket}/{name}")])
        run_with_faults(server, monkeypatch, work)
        assert {name: tree(root / name) for name in folders} == expected
        assert folder.verify(f"{bucket}/{folders[1]}", full=True) == []
