"""The rules of docs/architecture.md that imports can break."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "pipeline").rglob("*.py"))
STAGES = {"embed", "graph", "selection", "output", "report"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_ray_stays_in_execution():
    users = {path.relative_to(ROOT).as_posix() for path in FILES if "ray" in top(imports(path))}
    assert users == {"pipeline/d2prune/execution/on_ray.py", "pipeline/d2prune/execution/ray_group.py"}


def test_fsspec_stays_in_storage():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if top(imports(path)) & {"fsspec", "s3fs", "gcsfs"}
    }
    assert users == {"pipeline/d2prune/store/files.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_stages_do_not_import_each_other_and_nothing_imports_upwards(path):
    names = imports(path)
    package = path.relative_to(ROOT / "pipeline").parts[0]
    if path.name == "stage.py":
        others = {f"pipeline.{stage}.stage" for stage in STAGES - {package}}
        assert not names & others
    if package in STAGES | {"inputs", "scores"} or package in ("storage.py", "artifacts.py", "execution"):
        assert not names & {"d2prune.runs.driver", "d2prune.cli.main", "d2prune.config.model"}


def test_importing_the_package_is_quick():
    code = "import sys, pipeline; print(*sorted({'torch', 'ray', 'numba', 'pyarrow', 'faiss'} & sys.modules.keys()))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.split() == []


def test_the_public_names_are_not_hidden_by_modules():
    import d2prune
    import d2prune.runs.driver

    assert d2prune.run is d2prune.driver.run
    assert all(
        not isinstance(getattr(d2prune, name), ModuleType) for name in d2prune.__all__ if name != "scores"
    )
