"""Scheduled runs: a folder per run, the latest run, and the list of finished runs."""

import json
import logging
from pathlib import Path

import pytest

from d2prune.cli.main import main
from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.runs.driver import run
from d2prune.verify.folder import verify
from tests.pools import tree


def latest(place: Path) -> dict:
    return json.loads((place / "out" / "latest.json").read_text())


def test_growing_pool_gets_a_folder_per_run_and_the_latest_is_named(grow, place, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "d2prune")
    first = run(grow(2), InProcess())
    assert latest(place)["output"] == first.output and latest(place)["samples"] == 80
    second = run(grow(3), InProcess())
    assert "embed: 2 of 3 units already complete" in caplog.messages
    assert second.output != first.output
    assert latest(place)["output"] == second.output and latest(place)["samples"] == 120
    assert verify(first.output, full=True) == verify(second.output, full=True) == []

    before = tree(place / "work") | tree(place / "out")
    with monkeypatch.context() as patch:
        # A run that is up to date opens no executor.
        patch.setattr("d2prune.runs.driver.open_executor", None)
        third = run(grow(3))
    assert third.output == second.output
    assert f"up to date: {second.output}" in caplog.messages
    assert tree(place / "work") | tree(place / "out") == before

    # With the first pool again, its existing output becomes the latest.
    (place.with_name("pool") / "00000002.tar").unlink()
    run(grow(2))
    assert latest(place)["run_id"] == Path(first.output).name


def test_runs_are_listed_newest_first(grow, place, capsys):
    for shards in (1, 2):
        run(grow(shards), InProcess())
    for location in ("work", "out", "out/{run_id}"):
        assert main(["runs", f"{place}/{location}"]) == 0
        head, newest, continued, oldest = capsys.readouterr().out.splitlines()
        assert continued.endswith(": 1 shard new, +40 and -0 rows of these shards")
        assert head.split()[0] == "run" and "latest" in newest and "latest" not in oldest
        assert newest.split()[3:5] == ["80", "24"] and oldest.split()[3:5] == ["40", "12"]
    assert main(["runs", str(place)]) == 2
    assert "no finished run found; expected a work_dir" in capsys.readouterr().err


def test_only_the_last_folder_can_be_the_run_id(configure):
    for output in ("/a/{run_id}/b", "/a/run-{run_id}", "/a/{date}"):
        with pytest.raises(
            UserError, match=r"output = .*expected braces only in the last folder, .../\{run_id\}"
        ):
            configure(output=output)
