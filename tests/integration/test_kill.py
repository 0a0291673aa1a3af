"""The driver is killed at different moments; the same command resumes and writes the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def check_killed_run_resumes(configure, settings, tmp_path, moments, *options):
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


def test_run_killed_within_and_between_stages_resumes_with_the_same_bytes(configure, settings, tmp_path):
    # Between two stages one moment stands for all: tests/write/test_resume.py kills at every write.
    moments = ("a unit was embedded", "the graph was built", "a tar was written")
    check_killed_run_resumes(configure, settings, tmp_path, moments, "--no-ray")


def test_run_killed_on_ray_resumes_with_the_same_bytes(configure, settings, tmp_path, ray_executor):
    """One moment only, and on the session's Ray: every start on Ray takes seconds."""
    import ray

    assert ray_executor.cpus() == 2
    address = f"ray.address={ray.get_runtime_context().gcs_address}"
    options = ("--workers", "2", "--set", address)
    check_killed_run_resumes(configure, settings, tmp_path, ("everything was embedded",), *options)
