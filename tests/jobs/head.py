"""A Ray head with its job server, in a process of its own on loopback, and a clean copy of this project to submit."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
import sys, time
import ray
from ray.job_submission import JobSubmissionClient
context = ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_host="127.0.0.1",
                   dashboard_port=int(sys.argv[1]), log_to_driver=False)
client = JobSubmissionClient(f"http://{context.dashboard_url}")
while True:
    try:
        client.submit_job(entrypoint="true")
        break
    except RuntimeError:  # The agent that starts jobs is not there yet.
        time.sleep(0.5)
print(context.dashboard_url, flush=True)
sys.stdin.read()
"""


def environment() -> dict[str, str]:
    """Nothing but loopback, and no token for it in the home folder; `python` is the one that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    more = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "PATH": path,
    }
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | more


@contextlib.contextmanager
def ray_head(port: int) -> Iterator[str]:
    """The URL of the job server; the head ends with its standard input."""
    command = [sys.executable, "-c", HEAD, str(port)]
    head = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert head.stdout is not None
        yield f"http://{head.stdout.readline().strip()}"
    finally:
        head.communicate(timeout=60)


def clean_copy(target: Path) -> Path:
    """What a fresh clone of the working tree holds."""
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


def submit(server: str, folder: Path, *entrypoint: str) -> subprocess.Popen[str]:
    """`ray job submit` from a folder, as the README has it."""
    command = ["ray", "job", "submit", "--address", server, "--working-dir", ".", "--runtime-env"]
    return subprocess.Popen(
        [*command, "jobs/runtime_env.yaml", "--", *entrypoint],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
