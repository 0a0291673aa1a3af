"""Scheduled runs: a pool that grows, an output folder per run, a list of runs, pruning that takes nothing in use."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.errors import BusyError, UserError
from d2prune.execution import InProcess
from d2prune.runs import history
from d2prune.runs.driver import run
from d2prune.store import artifacts, lease, lease_record
from d2prune.verify.folder import verify
from tests.pools import tree

STAGES = ("embed", "graph", "rank", "select", "write", "report", "runs")


@pytest.fixture
def grown(configure, pool, tmp_path):
    """A configuration whose input is a folder, and how to let that grow."""
    folder = tmp_path / "pool"
    folder.mkdir()

    def grow(shards: int):
        for path in sorted(pool.glob("*.tar"))[:shards]:
            shutil.copy2(path, folder)
        return configure(input=str(folder), output=f"{tmp_path}/out/{{run_id}}")

    return grow


def latest(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "latest.json").read_text())


def test_a_pool_that_grows(grown, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "d2prune")
    first = run(grown(2), InProcess())
    assert latest(tmp_path)["output"] == first.output and latest(tmp_path)["samples"] == 80
    second = run(grown(3), InProcess())
    assert "embed: 2 of 3 units are finished already" in caplog.messages
    assert second.output != first.output
    assert latest(tmp_path)["output"] == second.output and latest(tmp_path)["samples"] == 120
    assert verify(first.output, full=True) == verify(second.output, full=True) == []
    before = tree(tmp_path / "work") | tree(tmp_path / "out")
    monkeypatch.setattr(
        "d2prune.runs.driver.open_executor", None
    )  # Nothing is opened where there is nothing to do.
    third = run(grown(3))
    assert third.output == second.output
    assert f"nothing new: {second.output} has all of it" in caplog.messages
    assert tree(tmp_path / "work") | tree(tmp_path / "out") == before
    # Back to the first pool: its output is still there, and is the latest again.
    (tmp_path / "pool" / "00000002.tar").unlink()
    run(grown(2))
    assert latest(tmp_path)["run_id"] == Path(first.output).name


def test_runs_are_listed(grown, tmp_path, capsys):
    for shards in (1, 2):
        run(grown(shards), InProcess())
    for place in ("work", "out", "out/{run_id}"):
        assert main(["runs", f"{tmp_path}/{place}"]) == 0
        head, newest, oldest = capsys.readouterr().out.splitlines()
        assert head.split()[0] == "run" and "latest" in newest and "latest" not in oldest
        assert newest.split()[3:5] == ["80", "24"] and oldest.split()[3:5] == ["40", "12"]
    assert main(["runs", str(tmp_path)]) == 2
    assert "expected a work_dir with a finished run" in capsys.readouterr().err


def test_pruning_leaves_what_one_run_would_have_left(grown, configure, tmp_path, capsys):
    run(grown(2), InProcess())
    run(
        configure(select__fraction=0.5, input=str(tmp_path / "pool"), output=str(tmp_path / "fixed")),
        InProcess(),
    )
    last = run(grown(3), InProcess())
    everything = tree(tmp_path / "work") | tree(tmp_path / "out")
    assert main(["runs", f"{tmp_path}/work", "--prune", "--keep", "1"]) == 0
    said = capsys.readouterr().out
    assert "would be deleted" in said and f"artifacts only; {tmp_path}/fixed is yours to delete" in said
    assert tree(tmp_path / "work") | tree(tmp_path / "out") == everything
    fixed = tree(tmp_path / "fixed")
    assert main(["runs", f"{tmp_path}/out", "--prune", "--keep", "1", "--yes"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert tree(tmp_path / "fixed") == fixed
    assert [path.name for path in (tmp_path / "out").iterdir() if any(path.rglob("*"))] == [
        Path(last.output).name
    ]
    left = tree(tmp_path / "work")
    assert verify(last.output, full=True) == []
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "work")
    run(grown(3), InProcess())
    assert tree(tmp_path / "work").keys() == left.keys()


def test_an_interrupted_pruning_can_go_on(grown, tmp_path, monkeypatch):
    run(grown(2), InProcess())
    run(grown(3), InProcess())
    work = str(tmp_path / "work")

    def fail(folder: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(history, "_delete_folder", fail)
        history.prune(work, 1, yes=True)
    assert len(history.read_runs(work)) == 2
    history.prune(work, 1, yes=True)
    assert len(history.read_runs(work)) == 1
    for stage in ("graph", "rank", "select", "write"):
        (manifest,) = [path for path in Path(work, stage).glob("*/manifest.json")]
        named = {unit["key"] for unit in json.loads(manifest.read_text())["units"]}
        there = {path.parent.name for path in Path(work, stage).glob("units/*/*")}
        assert there - named <= {path for path in there if path.startswith("whole")}
    assert not list(Path(work).rglob(history.PRUNED))


def test_what_was_never_finished_and_what_is_in_use_stays(grown, configure, tmp_path):
    run(grown(1), InProcess())
    run(grown(2), InProcess())
    other = configure(embed__batch_size=8)
    run(other, InProcess(), stop_after="embed")
    with lease.hold(str(tmp_path / "work")), pytest.raises(BusyError):
        history.prune(str(tmp_path / "work"), 1, yes=True)
    history.prune(str(tmp_path / "work"), 1, yes=True)
    manifests = [
        json.loads(path.read_text()) for path in Path(tmp_path, "work", "embed").glob("*/manifest.json")
    ]
    assert sorted(manifest["params"]["batch_size"] for manifest in manifests) == [8, 16]
    for manifest in manifests:
        for unit in manifest["units"]:
            assert artifacts.read_receipt(f"{tmp_path}/work/embed", unit["key"]) is not None
    with pytest.raises(UserError, match="--keep 0"):
        history.prune(str(tmp_path / "work"), 0, yes=False)


def test_only_the_last_folder_can_be_the_run_id(configure):
    for output in ("/a/{run_id}/b", "/a/run-{run_id}", "/a/{date}"):
        with pytest.raises(
            UserError, match=r"output = .*expected braces only as the last folder, .../\{run_id\}"
        ):
            configure(output=output)


def test_a_run_that_lost_its_lease_commits_nothing_more(configure, monkeypatch, tmp_path):
    config = configure()
    monkeypatch.setattr(lease_record.Holder, "alive", lambda self: None)
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    committed = artifacts.commit_manifest

    def taken_over(folder: str, manifest: artifacts.Manifest) -> artifacts.Manifest:
        """Another run takes the lease as soon as the embeddings are whole."""
        result = committed(folder, manifest)
        holder = lease_record.read_latest(store.join(config.work_dir, lease.FOLDER))
        lease_record.write_holder(
            store.join(config.work_dir, lease.FOLDER),
            dataclasses.replace(holder, token=holder.token + 1, owner="other"),
        )
        return result

    monkeypatch.setattr("d2prune.store.artifacts.commit_manifest", taken_over)
    original = lease.Lease.check
    monkeypatch.setattr(lease.Lease, "check", lambda self: (self._renew(), original(self))[1])
    with pytest.raises(BusyError, match="taken over by process"):
        run(config, InProcess())
    assert [path.parts[-3] for path in Path(config.work_dir).rglob("manifest.json")] == ["embed"]


def test_a_second_run_is_told_in_one_line(config_file, settings, capsys):
    with lease.hold(settings["work_dir"]):
        assert main(["run", "--config", str(config_file), "--no-ray"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2prune:")]
    assert len(lines) == 1 and "another run is in progress there (process" in lines[0]
