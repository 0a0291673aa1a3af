"""The job scripts pass their options to the command line."""

import runpy
import sys

import pytest

from d2prune import job
from tests.docs.commands import ROOT

SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_options_are_passed_on(path, monkeypatch):
    calls = []
    monkeypatch.setattr(job, "main", lambda argv, program: calls.append((list(argv), program)) or 7)
    monkeypatch.setattr(sys, "argv", [str(path), "--option", "value"])
    monkeypatch.setenv("RAY_ADDRESS", "ray://chosen")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 7
    command = {"filter.py": "run", "reshard.py": "reshard"}[path.name]
    assert calls == [([command, "--option", "value"], f"jobs/{path.name}")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("words", [["--optoin", "x"], ["--workers", "0"], ["--config", "/no/file"]])
def test_errors_name_the_script(path, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    monkeypatch.setenv("RAY_ADDRESS", "ray://chosen")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and shown.startswith(f"jobs/{path.name}: ") and shown.count("\n") == 1
    assert "d2prune " not in shown


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_name_hides_no_standard_module(path):
    """A script's folder comes first on its import path."""
    assert path.stem not in sys.stdlib_module_names
