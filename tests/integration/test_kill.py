"""The driver is killed at different moments; the same command resumes and writes the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from d2prune.execution import InProcess
from d2prune.runs.driver import run
from tests.pools import tree

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0
MOMENTS = {
    "a unit was embedded": "work/embed/units/*/receipt.json",
    "everything was embedded": "work/embed/*/manifest.json",
    "the graph was built": "work/graph/*/manifest.json",
    "samples were selected": "work/select/*/manifest.json",
    "a tar was written": "output/*.tar",
}


def start(config_file: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "d2prune", "run", "--config", str(config_file), *options]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen[bytes], folder: Path, pattern: str) -> bool:
    """Kill the driver alone as soon as a file appears; returns whether it was still running."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if any(folder.glob(pattern)):
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
        if process.poll() is not None:
            break
        time.sleep(0.002)
    raise AssertionError(f"{pattern} never appeared: {process.communicate()[1].decode()[-2000:]}")


# Each start on Ray takes seconds, so only one moment is tested there.
@pytest.mark.parametrize(
    ("options", "moments"),
    [(("--no-ray",), tuple(MOMENTS)), (("--workers", "2"), ("everything was embedded",))],
    ids=["no-ray", "ray"],
)
def test_killed_run_resumes_with_the_same_bytes(configure, settings, tmp_path, options, moments):
    undisturbed = configure(
        work_dir=str(tmp_path / "calm" / "work"), output=str(tmp_path / "calm" / "output")
    )
    run(undisturbed, InProcess())
    folder = tmp_path / "killed"
    config_file = tmp_path / "killed.yaml"
    config_file.write_text(
        yaml.safe_dump(settings | {"work_dir": str(folder / "work"), "output": str(folder / "output")})
    )
    kills = sum(kill_when(start(config_file, *options), folder, MOMENTS[moment]) for moment in moments)
    assert kills == len(moments)
    last = start(config_file, *options)
    _, errors = last.communicate(timeout=TIMEOUT_S)
    assert last.returncode == 0, errors.decode()
    assert tree(folder / "output") == tree(tmp_path / "calm" / "output")
