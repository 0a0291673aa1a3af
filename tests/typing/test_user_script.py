"""The types that users see: `make check` runs mypy --strict on a script with every public name."""

import ast
import runpy
from pathlib import Path

import d2prune

SCRIPT = Path(__file__).with_name("user_script.py")


def test_the_script_uses_every_public_name():
    used = {node.attr for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Name)}
    assert set(d2prune.__all__) | set(d2prune.scores.__all__) <= used


def test_the_script_runs(capsys):
    assert runpy.run_path(str(SCRIPT))["coreset"].mask.sum() == 20
    assert "Coreset(20 of 200 samples" in capsys.readouterr().out


def test_make_check_runs_mypy_on_the_script():
    """There, because mypy reads the cache that it has just written for the package."""
    assert (
        f"$(BIN)/mypy {SCRIPT.relative_to(SCRIPT.parents[2])}" in (SCRIPT.parents[2] / "Makefile").read_text()
    )
