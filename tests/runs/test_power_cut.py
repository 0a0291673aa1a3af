"""The power fails at random moments of a run; the same run again ends with the same bytes.

`D2PRUNE_POWER_CUTS` sets the number of moments per kind of run.
"""

import os
import random
from pathlib import Path

import pytest

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess, Resources
from d2prune.graph.build import build_graph, delete_intermediate_units, plan_job
from d2prune.parts.reader import Parts
from d2prune.reshard.reshard import ReshardParams, reshard
from d2prune.runs.driver import run
from d2prune.store import artifacts, lease_record
from d2prune.store.artifacts import Manifest
from d2prune.store.completeness import find_damaged_units
from d2prune.verify.folder import verify
from tests.graph.pools import PARAMS, clustered, embed
from tests.graph.test_build import SHARDED
from tests.pools import tree
from tests.power_cut import RecordingDisk
from tests.tables import make_rows, write_columns

MOMENTS = {"tables": 12, "tars": 3, "reshard": 6, "sharded graph": 3}
"""By the time that one run takes."""


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    return RecordingDisk(tmp_path / "disk")


@pytest.fixture
def work(request, disk, configure, pool, tmp_path):
    """Returns a function that runs once and returns its output folder, if it has one."""
    folders = {"work_dir": str(disk.root / "work"), "output": str(disk.root / "out" / "{run_id}")}
    if request.param == "tables":
        tables = write_columns(tmp_path / "tables", [make_rows(30, 1), make_rows(20, 2)])
        settings = {"graph": {"n_neighbors": 4}, "select": {"fraction": 0.3}, "report": {"gallery": 4}}
        config = RunConfig.parse({"input": str(tables), **folders, **settings}, "test")
        return lambda: run(config, InProcess()).output
    if request.param == "tars":
        config = configure(input=str(pool / "{00000000..00000001}.tar"), **folders)
        return lambda: run(config, InProcess()).output
    if request.param == "sharded graph":
        parts = embed(tmp_path / "embed", clustered(300, copies=0.2), n_parts=3)
        return lambda: build_sharded_graph(Parts(str(tmp_path), {"embed": parts}), str(disk.root / "graph"))
    config = configure(work_dir=str(tmp_path / "work"), output=str(tmp_path / "out"))
    subset = f"{run(config, InProcess()).output}/subset.npy"
    output = str(disk.root / "out")
    params = ReshardParams(samples_per_shard=10)
    return lambda: [output, reshard(str(pool), subset, output, params, folders["work_dir"])][0]


def build_sharded_graph(pool, folder):
    """The graph stage in small pieces, as a run calls it."""
    store.sweep_temporaries(folder)
    job = plan_job(pool, {"embed": "e" * 32}, folder, PARAMS, SHARDED)
    job, receipts = build_graph(job, InProcess(), Resources(), Resources())
    manifest = Manifest("graph", "f" * 32, {}, {}, tuple(receipts), {})
    artifacts.commit_manifest(folder, manifest)
    delete_intermediate_units(job)
    assert find_damaged_units(folder, manifest) == {}


def results(root):
    """The files of a run without its lease; reports show timings, so only their names count."""
    return {name: b"" if name.endswith("report.html") else data for name, data in tree(root).items()}


@pytest.mark.parametrize("work", MOMENTS, indirect=True)
def test_after_a_power_cut_the_same_run_ends_with_the_same_bytes(request, work, disk, monkeypatch):
    with disk.recording(monkeypatch):
        work()
    expected = results(disk.root)
    # The process that held the lease, this one, has ended with the power.
    monkeypatch.setattr(lease_record.Holder, "alive", lambda self: False)
    kind = request.node.callspec.params["work"]
    count = int(os.environ.get("D2PRUNE_POWER_CUTS", MOMENTS[kind]))
    rng = random.Random(5)
    for moment in rng.choices(range(disk.n_events + 1), k=count):
        disk.restore(moment, rng)
        output = work()
        assert results(disk.root) == expected, moment
        assert output is None or not list(Path(output).glob(".lease/**")), moment
    assert output is None or verify(output, full=True) == []
