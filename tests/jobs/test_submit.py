"""Jobs submitted to a real Ray cluster from a clean copy of this repository, as in README."""

import re
from pathlib import Path

import pytest
import yaml

from d2prune.config.model import RunConfig
from d2prune.execution import InProcess
from d2prune.runs import driver
from tests.jobs.cluster import (
    clean_copy,
    cluster_without_d2prune,
    stop,
    submit,
    submit_package,
    wait_for_files,
)
from tests.pools import tree, write_pool

pytestmark = pytest.mark.ray

# Appended to the submitted package: every process that imports it adds a line to a file.
RECORD_IMPORT = """
import sys
with open({log!r}, "a") as log:
    log.write(f"{{sys.argv[0].rpartition('/')[2]}} {{__file__}}\\n")
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory):
    """The file that records who imported d2prune, and from where."""
    return tmp_path_factory.mktemp("imports") / "imports.txt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, imports):
    """A clean copy of the repository whose package records its imports."""
    folder = clean_copy(tmp_path_factory.mktemp("clone") / "copy")
    with open(folder / "pipeline" / "d2prune" / "__init__.py", "a") as package:
        package.write(RECORD_IMPORT.format(log=str(imports)))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The job server of a cluster on which d2prune is not installed."""
    with cluster_without_d2prune(2, tmp_path_factory.mktemp("without")) as url:
        yield url


def test_job_runs_the_submitted_code_on_a_cluster_without_d2prune(server, folder, settings, imports):
    (folder / "run.yaml").write_text(yaml.safe_dump(settings | {"ray": {"workers": 1}}))
    # One job at a time: of two jobs that arrive together with the same folder, Ray may start the
    # second before the folder is completely unpacked.
    job = submit(server, folder)
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output
    assert Path(settings["output"], "manifest.json").exists()
    assert "write: done in" in output
    progress = output[output.index("embed:") : output.index("report: done")]
    assert not re.search(r"[\x1b\r]", progress), progress

    recorded = [line.split(" ", 1) for line in imports.read_text().splitlines()]
    # The driver, the workers, and their decode processes (`python -m`).
    assert {program for program, _ in recorded} >= {"filter.py", "default_worker.py", "-m"}
    assert all("runtime_resources" in path for _, path in recorded), recorded


def test_job_that_uploads_no_package_fails(server, folder, tmp_path):
    """The cluster really has no d2prune: without the upload nothing can be imported."""
    bare = tmp_path / "bare"
    (bare / "jobs").mkdir(parents=True)
    (bare / "jobs" / "runtime_env.yaml").write_text("{}")
    job = submit(server, bare, "python", "-c", "import d2prune")
    assert "d2prune is not installed on this cluster" in job.communicate(timeout=240)[0]


def test_package_carries_the_exit_code_of_a_job(server, folder, settings, tmp_path):
    settings["work_dir"], settings["output"] = "/proc/w", "/proc/o"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    job = submit_package(server, folder, tmp_path, "--config", "run.yaml", "--stop-after", "embed")
    output = job.communicate(timeout=240)[0]
    assert job.returncode in (1, 2), output
    assert re.search(r"^submitted raysubmit_", output, re.MULTILINE) and "Traceback" not in output, output
    assert re.search(r"^d2prune: .*/proc/", output, re.MULTILINE), output


def test_stopped_job_resumes(server, folder, settings, tmp_path):
    settings["input"] = str(write_pool(tmp_path / "pool", shards=8, samples=20))
    undisturbed = {**settings, "work_dir": str(tmp_path / "calm"), "output": str(tmp_path / "expected")}
    driver.run(RunConfig.parse(undisturbed, "test"), InProcess())
    (folder / "stopped.yaml").write_text(yaml.safe_dump(settings))
    command = ("python", "jobs/filter.py", "--config", "stopped.yaml")

    job = submit(server, folder, *command, name="stopped")
    receipts = wait_for_files(Path(settings["work_dir"]), "embed/units/*/receipt.json", job)
    assert "'stopped' was stopped" in stop(server, "stopped")
    output = job.communicate(timeout=60)[0]
    assert "jobs/filter.py: interrupted" in output and "Traceback" not in output, output
    assert not Path(settings["output"], "manifest.json").exists()
    completed = {path: path.stat().st_mtime_ns for path in receipts}

    # The stages after embed would only start more workers: they resume in this process.
    # Submitted by the package alone, as an installed one submits.
    place = ("--config", str(folder / "stopped.yaml"))
    job = submit_package(server, folder, tmp_path, *place, "--stop-after", "embed")
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output
    # On a fast machine the stop may arrive after embedding is complete.
    assert re.search(r"embed: (\d+ of 8 units already complete|already complete)", output)
    # The second run starts without waiting for the lease to expire: the stopped run released it.
    assert "waiting" not in output[: output.index("embed:")]
    assert {path: path.stat().st_mtime_ns for path in receipts} == completed
    driver.run(RunConfig.parse(settings, "test"), InProcess())
    assert tree(settings["output"]) == tree(undisturbed["output"])
