"""The job scripts: thin, and they work where users run them: submitted to a real Ray head from a clean copy."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from d2prune.cli import main
from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.runs import driver
from tests.jobs.head import ROOT, clean_copy, ray_head, stop, submit, wait_for_files
from tests.pools import tree, write_pool

JOBS = sorted((ROOT / "jobs").glob("*.py"))
SCRIPTS = [path for path in JOBS if not path.name.startswith("_")]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_jobs_are_thin(path):
    assert len(path.read_text().splitlines()) <= 80
    # A script's folder comes first on its path.
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_jobs_pass_their_options_on(path, monkeypatch):
    said = []
    monkeypatch.setattr(main, "main", lambda argv: said.append(list(argv)) or 7)
    monkeypatch.setattr(sys, "argv", [str(path), "--config", "run.yaml"])
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "_stage", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(SystemExit) as ended:
        exec(compile(path.read_text(), path, "exec"), {"__name__": "__main__"})
    assert ended.value.code == 7
    monkeypatch.delitem(sys.modules, "_stage")
    (arguments,) = said
    main._parser().parse_args(arguments) if path.stem != "reshard" else None
    expected = {"filter": ["run"], "reshard": ["reshard"]}.get(path.stem, ["run"])
    stop = (
        []
        if path.stem in ("filter", "reshard")
        else ["--stop-after", {"selection": "select"}.get(path.stem, path.stem)]
    )
    assert arguments == [*expected, "--config", "run.yaml", *stop]


@pytest.fixture(scope="module")
def server():
    """The job server of a cluster of two nodes."""
    with ray_head(1, 1) as url:
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clean_copy(tmp_path_factory.mktemp("clone") / "copy")


def test_submitted_from_a_clean_copy(server, folder, settings):
    (folder / "run.yaml").write_text(yaml.safe_dump(settings | {"ray": {"workers": 2}}))
    # One after the other: of two jobs that arrive together with one folder, Ray may start the
    # second before the folder is unpacked whole.
    run = submit(server, folder)
    said = run.communicate(timeout=240)[0]
    wrong = submit(server, folder, "python", "jobs/embed.py", "--config", "run.yaml", "--set", "graph.k=3")
    complaint = wrong.communicate(timeout=240)[0]
    assert run.returncode == 0, said
    assert Path(settings["output"], "manifest.json").exists()
    assert "write: done in" in said
    driver = said[said.index("embed:") : said.index("report: done")]
    assert not re.search(r"[\x1b\r]", driver), driver
    # `ray job submit` itself ends with 1 whatever the driver ended with; that is in its last words.
    assert wrong.returncode == 1 and "exit code 2" in complaint
    assert "d2prune: run.yaml: unknown key graph.k" in complaint


def test_a_stopped_job_goes_on_where_it_was(server, folder, settings, tmp_path):
    settings["input"] = str(write_pool(tmp_path / "pool", shards=10, samples=40))
    undisturbed = {**settings, "work_dir": str(tmp_path / "calm"), "output": str(tmp_path / "expected")}
    driver.run(RunConfig.parse(undisturbed, "test"), InProcess())
    (folder / "stopped.yaml").write_text(yaml.safe_dump(settings))
    command = ("python", "jobs/filter.py", "--config", "stopped.yaml")

    job = submit(server, folder, *command, name="stopped")
    receipts = wait_for_files(Path(settings["work_dir"]), "embed/units/*/receipt.json", job)
    assert "'stopped' was stopped" in stop(server, "stopped")
    said = job.communicate(timeout=60)[0]
    assert "d2prune: interrupted" in said and "Traceback" not in said, said
    assert not Path(settings["output"], "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in receipts}

    again = submit(server, folder, *command)
    said = again.communicate(timeout=240)[0]
    assert again.returncode == 0, said
    # On a quick machine the stop may come when embedding is through.
    assert re.search(r"embed: (\d+ of 10 units are finished already|finished before)", said)
    # At once, as the stopped run has given its lease back.
    assert "waiting to see whether it is alive" not in said
    assert {path: path.stat().st_mtime_ns for path in receipts} == done
    assert tree(settings["output"]) == tree(undisturbed["output"])
