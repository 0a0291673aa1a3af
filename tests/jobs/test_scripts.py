"""The job scripts pass their options to the command line."""

import runpy
import sys

import pytest

from d2prune.cli import main
from tests.docs.commands import ROOT

SCRIPTS = sorted((ROOT / "jobs").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_options_are_passed_on(path, monkeypatch):
    calls = []
    monkeypatch.setattr(main, "main", lambda argv: calls.append(list(argv)) or 7)
    monkeypatch.setattr(sys, "argv", [str(path), "--option", "value"])
    monkeypatch.setenv("RAY_ADDRESS", "ray://chosen")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 7
    assert calls == [[{"filter.py": "run", "reshard.py": "reshard"}[path.name], "--option", "value"]]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_name_hides_no_standard_module(path):
    """A script's folder comes first on its import path."""
    assert path.stem not in sys.stdlib_module_names
