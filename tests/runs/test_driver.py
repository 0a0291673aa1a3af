"""The driver: which stages run, and what happens when another run holds the lease."""

import dataclasses
import functools
import time
from pathlib import Path

import pytest

from d2prune import store
from d2prune.cli.main import main
from d2prune.errors import BusyError, UserError
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.store import artifacts, lease, lease_record
from d2prune.verify.folder import verify


def test_unknown_stage_is_a_usage_error(configure):
    with pytest.raises(UserError, match="stop_after = grph: expected one of embed, graph, rank"):
        run(configure(), InProcess(), stop_after="grph")


def test_run_that_lost_its_lease_commits_nothing_more(configure, monkeypatch):
    config = configure()
    monkeypatch.setattr(lease_record.Holder, "alive", lambda self: None)
    monkeypatch.setattr(lease, "RENEW_S", 0.05)
    committed = artifacts.commit_manifest

    def commit_and_take_over(folder: str, manifest: artifacts.Manifest) -> artifacts.Manifest:
        """Another run takes over the lease as soon as the embeddings are complete."""
        result = committed(folder, manifest)
        holder = lease_record.read_latest(store.join(config.work_dir, lease.FOLDER))
        lease_record.write_holder(
            store.join(config.work_dir, lease.FOLDER),
            dataclasses.replace(holder, token=holder.token + 1, owner="other"),
        )
        return result

    monkeypatch.setattr("d2prune.store.artifacts.commit_manifest", commit_and_take_over)
    original = lease.Lease.check
    monkeypatch.setattr(lease.Lease, "check", lambda self: (self._renew(), original(self))[1])
    with pytest.raises(BusyError, match="taken over by process"):
        run(config, InProcess())
    assert [path.parts[-3] for path in Path(config.work_dir).rglob("manifest.json")] == ["embed"]


def test_run_that_cannot_renew_its_lease_ends_with_one_line_and_commits_nothing_more(
    config_file, settings, monkeypatch, capsys
):
    hold = functools.partial(lease.hold, ttl_s=0.5, renew_s=0.05)
    monkeypatch.setattr("d2prune.runs.driver.lease.hold", hold)
    committed = artifacts.commit_manifest

    def commit_and_fill_disk(folder: str, manifest: artifacts.Manifest) -> artifacts.Manifest:
        result = committed(folder, manifest)

        def fail(folder: str, holder: lease_record.Holder) -> None:
            raise UserError(f"{folder}: cannot be written: the disk is full")

        monkeypatch.setattr(lease_record, "write_holder", fail)
        time.sleep(0.3)
        return result

    monkeypatch.setattr("d2prune.store.artifacts.commit_manifest", commit_and_fill_disk)
    assert main(["run", "--config", str(config_file), "--no-ray"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2prune:")]
    assert len(lines) == 1 and "this run's lease could not be renewed for" in lines[0]
    assert "the disk is full" in lines[0] and "the same command resumes" in lines[0]
    assert [path.parts[-3] for path in Path(settings["work_dir"]).rglob("manifest.json")] == ["embed"]


def test_second_run_ends_with_exit_code_3(config_file, settings, capsys):
    with lease.hold(settings["work_dir"]):
        assert main(["run", "--config", str(config_file), "--no-ray"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("d2prune:")]
    assert len(lines) == 1 and "another run is" in lines[0] and "(process" in lines[0]


def test_folders_with_glob_characters_in_their_names_work(configure, tmp_path):
    config = configure(work_dir=str(tmp_path / "work [1]?"), output=str(tmp_path / "out *?[ab]"))
    first = run(config, InProcess())
    assert verify(first.output, full=True) == []
    assert not run(config, InProcess()).seconds
