"""The types that users see: a script with every public name passes mypy --strict, and runs."""

import ast
import runpy
from pathlib import Path

from mypy import api

import d2prune

SCRIPT = Path(__file__).with_name("user_script.py")


def test_the_script_uses_every_public_name():
    used = {node.attr for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Name)}
    assert set(d2prune.__all__) | set(d2prune.scores.__all__) <= used


def test_the_script_runs(capsys):
    assert runpy.run_path(str(SCRIPT))["coreset"].mask.sum() == 20
    assert "Coreset(20 of 200 samples" in capsys.readouterr().out


def test_mypy_strict_accepts_the_script(monkeypatch, tmp_path):
    """Without the configuration of this project; its imports are followed silently, as those of a package."""
    root = SCRIPT.parents[2]
    monkeypatch.setenv("MYPYPATH", str(root / "pipeline"))
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    found, errors, code = api.run([*options, f"--cache-dir={root / '.mypy_cache'}", str(SCRIPT)])
    assert code == 0, found + errors
