"""The job scripts: thin, and they work where users run them: submitted to a real Ray head from a clean copy."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import cli
from tests.jobs.head import ROOT, clean_copy, ray_head, submit

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
    monkeypatch.setattr(cli, "main", lambda argv: said.append(list(argv)) or 7)
    monkeypatch.setattr(sys, "argv", [str(path), "--config", "run.yaml"])
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.delitem(sys.modules, "_stage", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(SystemExit) as ended:
        exec(compile(path.read_text(), path, "exec"), {"__name__": "__main__"})
    assert ended.value.code == 7
    monkeypatch.delitem(sys.modules, "_stage")
    (arguments,) = said
    cli._parser().parse_args(arguments) if path.stem != "reshard" else None
    expected = {"filter": ["run"], "reshard": ["reshard"]}.get(path.stem, ["run"])
    stop = (
        []
        if path.stem in ("filter", "reshard")
        else ["--stop-after", {"selection": "select"}.get(path.stem, path.stem)]
    )
    assert arguments == [*expected, "--config", "run.yaml", *stop]


def test_submitted_from_a_clean_copy(settings, tmp_path):
    folder = clean_copy(tmp_path / "copy")
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    with ray_head(1, 1) as server:
        # One after the other: of two jobs that arrive together with one folder, Ray may start the second before the
        # folder is unpacked whole.
        run = submit(server, folder, "python", "jobs/filter.py", "--config", "run.yaml", "--workers", "2")
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
