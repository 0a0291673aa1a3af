"""Pruning deletes what only old runs need, and nothing that is in use."""

import json
import shutil
from pathlib import Path

import pytest

from d2prune.cli.main import main
from d2prune.errors import BusyError, UserError
from d2prune.execution import InProcess
from d2prune.runs import history, pruning
from d2prune.runs.driver import run
from d2prune.store import artifacts, lease
from d2prune.verify.folder import verify
from tests.pools import tree


def test_pruning_to_one_run_leaves_what_that_run_alone_would_have_written(grow, configure, tmp_path, capsys):
    run(grow(2), InProcess())
    fixed_output = configure(
        select__fraction=0.5, input=str(tmp_path / "pool"), output=str(tmp_path / "fixed")
    )
    run(fixed_output, InProcess())
    last = run(grow(3), InProcess())
    everything = tree(tmp_path / "work") | tree(tmp_path / "out")
    assert main(["runs", f"{tmp_path}/work", "--prune", "--keep", "1"]) == 0
    printed = capsys.readouterr().out
    assert "would be deleted" in printed
    assert f"artifacts only; you may delete the output {tmp_path}/fixed" in printed
    assert tree(tmp_path / "work") | tree(tmp_path / "out") == everything

    fixed = tree(tmp_path / "fixed")
    assert main(["runs", f"{tmp_path}/out", "--prune", "--keep", "1", "--yes"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert tree(tmp_path / "fixed") == fixed
    outputs = [path for path in (tmp_path / "out").iterdir() if any(path.rglob("*"))]
    assert [path.name for path in outputs] == [Path(last.output).name]
    left = tree(tmp_path / "work")
    assert verify(last.output, full=True) == []

    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "work")
    run(grow(3), InProcess())
    assert tree(tmp_path / "work").keys() == left.keys()


def test_interrupted_pruning_resumes(grow, tmp_path, monkeypatch):
    run(grow(2), InProcess())
    run(grow(3), InProcess())
    work = str(tmp_path / "work")

    def interrupt(folder: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pruning, "_delete_folder", interrupt)
        pruning.prune(work, 1)
    assert len(history.read_runs(work)) == 2
    pruning.prune(work, 1)
    assert len(history.read_runs(work)) == 1
    for stage in ("graph", "rank", "select", "write"):
        (manifest,) = Path(work, stage).glob("*/manifest.json")
        listed = {unit["key"] for unit in json.loads(manifest.read_text())["units"]}
        stored = {path.parent.name for path in Path(work, stage).glob("units/*/*")}
        assert all(key.startswith("whole") for key in stored - listed)
    assert not list(Path(work).rglob(pruning.PRUNED))


def test_artifacts_that_no_finished_run_lists_are_kept(grow, configure, tmp_path):
    run(grow(1), InProcess())
    run(grow(2), InProcess())
    work = str(tmp_path / "work")
    run(configure(embed__batch_size=8), InProcess(), stop_after="embed")
    pruning.prune(work, 1)
    manifests = [json.loads(path.read_text()) for path in Path(work, "embed").glob("*/manifest.json")]
    assert sorted(manifest["params"]["batch_size"] for manifest in manifests) == [8, 16]
    for manifest in manifests:
        for unit in manifest["units"]:
            assert artifacts.read_receipt(f"{work}/embed", unit["key"]) is not None


def test_pruning_is_refused_during_a_run_and_below_one_run_to_keep(tmp_path):
    work = str(tmp_path / "work")
    with lease.hold(work), pytest.raises(BusyError):
        pruning.prune(work, 1)
    with pytest.raises(UserError, match="--keep 0: expected at least 1"):
        pruning.plan_pruning(work, 0)
