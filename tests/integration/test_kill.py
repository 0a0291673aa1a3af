"""The driver is killed at different moments; the same command resumes and writes the same bytes."""

import signal
import time
from pathlib import Path

import yaml

from d2prune.execution import InProcess
from d2prune.runs.driver import run
from tests.pools import tree
from tests.programs import start

TIMEOUT_S = 120.0
MOMENTS = {
    "a unit was embedded": "work/embed/units/*/receipt.json",
    "everything was embedded": "work/embed/*/manifest.json",
    "the graph was built": "work/graph/*/manifest.json",
    "a tar was written": "output/*.tar",
}


def kill_when(process, folder: Path, pattern: str, errors: Path) -> bool:
    """Kill the driver alone as soon as a file appears; returns whether it was still running."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if any(folder.glob(pattern)):
            process.kill()
            process.join()
            return process.exitcode == -signal.SIGKILL
        if not process.is_alive():
            break
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"{pattern} never appeared: {errors.read_text()[-2000:]}")


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
    command, errors = ["run", "--config", str(config_file), *options], tmp_path / "errors.txt"
    kills = sum(kill_when(start(command, errors), folder, MOMENTS[moment], errors) for moment in moments)
    assert kills == len(moments)
    last = start(command, errors)
    last.join(TIMEOUT_S)
    assert last.exitcode == 0, errors.read_text()
    assert tree(folder / "output") == tree(tmp_path / "calm" / "output")


def test_run_killed_within_and_between_stages_resumes_with_the_same_bytes(configure, settings, tmp_path):
    # Between two stages one moment stands for all: tests/write/test_resume.py kills at every write.
    moments = ("a unit was embedded", "the graph was built", "a tar was written")
    check_killed_run_resumes(configure, settings, tmp_path, moments, "--no-ray")


def test_run_killed_on_ray_resumes_with_the_same_bytes(configure, settings, tmp_path, ray_executor):
    """One moment and one worker, and on the session's Ray: every start on Ray takes seconds."""
    import ray

    assert ray_executor.cpus() == 2
    address = f"ray.address={ray.get_runtime_context().gcs_address}"
    options = ("--workers", "1", "--set", address)
    check_killed_run_resumes(configure, settings, tmp_path, ("everything was embedded",), *options)
