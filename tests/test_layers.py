"""The rules about imports (the table in docs/architecture.md) and about the length of files and functions."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline" / "d2prune"
STAGES = {"embed", "rescore", "graph", "dedup", "rank", "select", "write", "report", "reshard", "verify"}
ALL_ABOVE = "all above"


def layers(text: str) -> dict[str, set[str]]:
    """Package or module -> what it may import, from the table under the heading "Layers", lowest first."""
    section = text.split("\n## Layers\n", 1)[1].split("\n## ", 1)[0]
    allowed: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`.*)\|$", section, re.MULTILINE):
        names, _, imports = (cell.strip() for cell in row.split(" | "))
        below = set(allowed) if imports == ALL_ABOVE else set(re.findall(r"`(\w+)`", imports))
        for name in re.findall(r"`(\w+)`", names):
            allowed[name] = below
    return allowed


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions and for types only."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(path: Path, root: Path) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return path.relative_to(root).parts[0].removesuffix(".py")


def violations(root: Path, allowed: dict[str, set[str]]) -> list[str]:
    """Imports that the table does not allow, one line each."""
    found = []
    for path in sorted(root.rglob("*.py")):
        own = room(path, root)
        if own in ("__init__", "__main__"):
            continue
        used = {name.split(".")[1] for name in imported_modules(path) if name.startswith("d2prune.")}
        rooms = {room(child, root) for child in root.iterdir()} - {own, "__init__"}
        name = path.relative_to(root)
        found.extend(
            f"{name} imports {other}; {own} may not"
            for other in sorted(used & rooms)
            if other not in allowed[own]
        )
    return found


@pytest.fixture(scope="module")
def table():
    return layers((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def test_the_table_has_every_package_once_and_only_points_down(table):
    rooms = {room(path, PACKAGE) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert set(table) == rooms
    lower: set[str] = set()
    for name, imports in table.items():
        assert imports <= lower, f"{name} may import {sorted(imports - lower)}, which do not stand above it"
        assert not (name in STAGES and imports & STAGES), f"{name} and {imports & STAGES} are stages"
        lower.add(name)


def test_imports_follow_the_table(table):
    assert violations(PACKAGE, table) == []


@pytest.mark.parametrize(
    ("planted", "line"),
    [
        ("graph/upward.py", "from d2prune.rank import member"),
        ("knn/upward.py", "import d2prune.graph.stage"),
        ("store/upward.py", "def read():\n    from d2prune.config.model import RunConfig"),
        ("select/upward.py", "from d2prune import runs"),
    ],
)
def test_a_planted_upward_import_is_found(table, tmp_path, planted, line):
    for name in table:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / planted).write_text(line)
    assert [found.split(" imports ")[0] for found in violations(tmp_path, table)] == [planted]


def users_of(*modules: str) -> set[str]:
    """Packages of files that import one of these."""
    return {
        room(path, PACKAGE)
        for path in PACKAGE.rglob("*.py")
        if {name.split(".")[0] for name in imported_modules(path)} & set(modules)
    }


def test_ray_is_used_in_execution_only():
    assert users_of("ray") == {"execution"}


def test_fsspec_is_used_in_store_only():
    assert users_of("fsspec", "s3fs", "gcsfs") == {"store"}


def test_no_file_or_function_is_too_long():
    """Files of at most 400 lines, functions of at most 80."""
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(PACKAGE).as_posix()
        if text.count("\n") > 400:
            long.append(f"{name}: {text.count(chr(10))} lines")
        functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)]
        lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
        long += [f"{name}: {function} has {lines} lines" for function, lines in lengths.items() if lines > 80]
    assert long == []
