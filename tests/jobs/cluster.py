"""A Ray cluster with a job server on loopback, and a clean copy of the repository to submit."""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.docs.commands import ROOT, commands

HEAD = """
import sys, time
from ray.cluster_utils import Cluster
from ray.job_submission import JobSubmissionClient
port, agent_port, cpus = map(int, sys.argv[1:])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": True,
    "dashboard_host": "127.0.0.1", "dashboard_port": port, "dashboard_agent_listen_port": agent_port})
url = f"http://127.0.0.1:{port}"
for attempt in range(60):
    try:
        JobSubmissionClient(url).submit_job(entrypoint="true")
        break
    except Exception:  # The server, or the agent that starts jobs, is not up yet.
        if attempt == 59:
            raise
        time.sleep(0.5)
print(url, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

# Every Python process of the cluster imports this before anything else. Ray unpacks what a job
# uploads below `runtime_resources`; a `d2prune` installed in any other way cannot be imported.
WITHOUT_D2PRUNE = """
import sys
from importlib.machinery import PathFinder

class OnlyUploaded:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "d2prune":
            return None
        spec = PathFinder.find_spec(name, [entry for entry in sys.path if "runtime_resources" in entry])
        if spec is None:
            raise ModuleNotFoundError("d2prune is not installed on this cluster", name=name)
        return spec

sys.meta_path.insert(0, OnlyUploaded)
"""


def environment() -> dict[str, str]:
    """Loopback only, no token from the home folder, and `python` is the one that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    changes = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "PATH": path,
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | changes


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextlib.contextmanager
def cluster_without_d2prune(cpus: int, folder: Path) -> Iterator[str]:
    """Start a cluster of one node without d2prune; yields the URL of its job server.

    Args:
        cpus: cores of the node. Several nodes on one machine would share the folder that Ray
            unpacks jobs to.
        folder: an empty folder for the module that hides d2prune.
    """
    (folder / "sitecustomize.py").write_text(WITHOUT_D2PRUNE)
    arguments = [str(number) for number in [*free_ports(2), cpus]]
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment() | {"PYTHONPATH": str(folder)},
    )
    try:
        assert head.stdout is not None
        url = head.stdout.readline().strip()
        assert url, "the head did not start"
        yield url
    finally:
        head.communicate(timeout=60)


def clean_copy(target: Path) -> Path:
    """Copy the files that a fresh clone of the working tree would hold."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def submit(server: str, folder: Path, *entrypoint: str, name: str | None = None) -> subprocess.Popen[str]:
    """Run README's `ray job submit` in a folder, if given with another entrypoint or a submission id."""
    (line,) = {step.text for step in commands() if step.text.startswith("ray job submit ")}
    words = shlex.split(line)
    options = words[: words.index("--")] + ([] if name is None else ["--submission-id", name])
    return subprocess.Popen(
        [*options, "--", *(entrypoint or words[words.index("--") + 1 :])],
        cwd=folder,
        env=environment() | {"RAY_ADDRESS": server},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def submit_package(server: str, folder: Path, here: Path, *options: str) -> subprocess.Popen[str]:
    """Run `d2prune submit` of the package in a copy of the repository, in another folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "d2prune", "submit", "--address", server, *options],
        cwd=here,
        env=environment() | {"PYTHONPATH": str(folder / "pipeline")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop(server: str, name: str) -> str:
    """Run `ray job stop`; returns its output."""
    command = ["ray", "job", "stop", "--address", server, name]
    done = subprocess.run(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def wait_for_files(
    folder: Path, pattern: str, process: subprocess.Popen[str], limit_s: float = 200.0
) -> list[Path]:
    """Wait until a file matches; fails if the process ends first."""
    deadline = time.monotonic() + limit_s
    while not (found := list(folder.glob(pattern))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=10)[0]
        time.sleep(0.05)
    return found
