"""Forks of one process that has collected all tests run their files, and report as one process would."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
import os, pytest
from tests.side_by_side import SideBySide

def pytest_configure(config):
    config.pluginmanager.register(SideBySide(2))

@pytest.fixture(scope="session", autouse=True)
def ends(request):
    yield
    (request.config.rootpath / f"ended-{os.getpid()}").touch()
    if (request.config.rootpath / "fail-at-the-end").exists():
        raise ValueError("session fixture")

@pytest.fixture(scope="module")
def of_the_file(request):
    yield request.path.name
    open(request.config.rootpath / "files", "a").write(f"{request.path.name}\\n")
"""
WAITING = """
import os, time
def wait_for(name):
    end = time.monotonic() + 60
    while not os.path.exists(name):
        assert time.monotonic() < end
        time.sleep(0.01)
"""
FILES = {
    "test_a.py": """
import pytest, warnings
from pathlib import Path
from waiting import wait_for
def test_first(of_the_file, tmp_path):
    # Neither process runs everything.
    Path("a").touch()
    wait_for("b")
    assert "process-" in str(tmp_path)
def test_skipped(of_the_file):
    pytest.skip("not here")
@pytest.mark.parametrize("n", range(3))
def test_warns(of_the_file, n):
    warnings.warn(f"warning {n}", FutureWarning)
""",
    "test_b.py": """
from pathlib import Path
from waiting import wait_for
def test_other(of_the_file):
    Path("b").touch()
    wait_for("a")
def test_fails(of_the_file):
    print("printed by it")
    assert 1 + 1 == 3
""",
    "test_c.py": "def test_one(of_the_file):\n    pass\n",
}
DIES = """
import os
from waiting import wait_for
def test_that_dies():
    wait_for("b")
    os._exit(7)
"""


def _run(folder: Path, files: dict[str, str]) -> tuple[int, str]:
    """The exit code, and what is printed."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in {"conftest.py": CONFTEST, "waiting.py": WAITING, **files}.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--basetemp={folder / 'temporary'}",
            "-p",
            "no:cacheprovider",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def test_reports_are_those_of_one_process(tmp_path):
    code, printed = _run(tmp_path, FILES)
    assert code == 1
    assert re.search(r"1 failed, 6 passed, 1 skipped, 3 warnings", printed), printed
    assert "assert (1 + 1) == 3" in printed and "printed by it" in printed
    assert all(f"FutureWarning: warning {n}" in printed for n in range(3))
    # The fixtures of a file end with it, those of the session with each of the two processes.
    assert sorted((tmp_path / "files").read_text().split()) == sorted(FILES)
    assert len(list(tmp_path.glob("ended-*"))) == 2


def test_a_dead_process_and_a_failing_end_are_failures(tmp_path):
    (tmp_path / "fail-at-the-end").touch()
    code, printed = _run(
        tmp_path, {"test_a.py": DIES, "test_b.py": "def test_one():\n    open('b', 'w').close()\n"}
    )
    assert code == 1
    assert "test_a.py::test_that_dies: the test process ended with exit code 7" in printed
    assert "ValueError: session fixture" in printed
