"""Fault injection: seeded faults on a local Ray cluster of three nodes must not change the output.

    python -m benchmarks.chaos --runs 30

Each run reads from and writes to its own S3 server on loopback, has its own cluster and driver
(`d2prune run`), and suffers one fault at a random moment: a worker, an actor, a raylet, the driver
or the head is killed, a node joins, or the store refuses connections for 20 s. The moment is taken
from an undisturbed run and identified by the number of files written, so that the fault comes
before the end of the run even on a busy machine. A driver that fails is started again with the same
command, on a new cluster if the head died. The output is compared byte for byte with that of the
undisturbed run.

Writes to temporary folders only and prints a markdown table. Exits with 1 unless every fault was
injected and every output is equal. Kills only processes that it started, by process id.
"""

import argparse
import contextlib
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import processes
from d2prune.demo import s3_server
from tests.pools import tree, write_pool

EVENTS = ("worker", "actor", "raylet", "driver", "head", "node joins", "store unreachable for 20 s")

LIMIT_S = 600.0
QUIET = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "raylet":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    elif line.strip() == "node joins":
        nodes.append(cluster.add_node(num_cpus=1))
    elif line.strip() == "head":
        cluster.head_node.kill_gcs_server(check_alive=False)
        cluster.head_node.kill_raylet(check_alive=False)
    print("done", flush=True)
cluster.shutdown()
"""


class Proxy:
    """A TCP proxy in front of the store that can make it unreachable for some time."""

    def __init__(self, target: int) -> None:
        self._target, self._unreachable = target, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def interrupt(self, seconds: float) -> None:
        """Break every connection and refuse new ones for this time."""
        self._unreachable.set()
        time.sleep(seconds)
        self._unreachable.clear()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self._unreachable.is_set():
                return
            with (
                socket.create_connection(("127.0.0.1", self._target)) as server,
                selectors.DefaultSelector() as ready,
            ):
                ready.register(client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, client)
                while not self._unreachable.is_set():
                    for key, _ in ready.select(0.5):
                        data = key.fileobj.recv(2**16)  # type: ignore[union-attr]
                        if not data:
                            return
                        key.data.sendall(data)


class RayCluster:
    """Three nodes, started by a child process that reads commands from its standard input."""

    def __init__(self, environment: dict[str, str]) -> None:
        # On a busy machine a node may exceed Ray's start-up limit of 30 s.
        for _ in range(5):
            self.process = self._start(environment)
            assert self.process.stdout is not None
            self.address = self.process.stdout.readline().strip()
            if self.address:
                return
            self.close()
        raise SystemExit("the Ray cluster did not start in 5 attempts")

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=processes.ROOT,
        )

    def send_command(self, command: str) -> None:
        """Send one of the commands of `CLUSTER` and wait until it is done."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def workers(self) -> dict[int, str]:
        """Return process id -> title of Ray workers, except agents: their death kills a raylet."""
        found = processes.descendants(self.process.pid)
        return {
            pid: title for pid, title in found.items() if title.startswith("ray::") and "Agent" not in title
        }

    def close(self) -> None:
        """Shut the cluster down."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        self.process.kill()


class WrittenFiles:
    """The progress of a run, as the files ever seen in its work folder and its output folder.

    Attributes:
        stage: folder in work_dir of the newest file.
    """

    def __init__(self, bucket: Path) -> None:
        self._bucket, self._seen = bucket, set[Path]()
        self.stage = "start"

    def count(self) -> int:
        """Look for new files, update `stage` and return the number of files seen so far."""
        for name in ("work", "output"):
            fresh = {path for path in (self._bucket / name).rglob("*") if path.is_file()} - self._seen
            for path in sorted(fresh):
                folders = path.relative_to(self._bucket).parts
                self.stage = folders[1] if name == "work" and len(folders) > 2 else self.stage
            self._seen |= fresh
        return len(self._seen)


@dataclass(frozen=True)
class Moment:
    """A moment of a run: `delay` seconds after file number `files` was written."""

    files: int
    delay: float


Tree = dict[str, bytes]
Timeline = list[tuple[float, int]]
"""(Seconds since the driver started, files written so far), one entry per change."""


def pick_moment(timeline: Timeline, rng: random.Random) -> Moment:
    """Return a random moment, uniform over the run except for its very beginning and end."""
    at = rng.uniform(0.1, 0.97) * timeline[-1][0]
    since, files = max(entry for entry in timeline if entry[0] <= at)
    return Moment(files, at - since)


def record_timeline(driver: subprocess.Popen[bytes], written: WrittenFiles) -> Timeline:
    """Wait for the end of an undisturbed run and return its timeline."""
    begin, timeline = time.monotonic(), [(0.0, 0)]
    while driver.poll() is None:
        if (files := written.count()) != timeline[-1][1]:
            timeline.append((time.monotonic() - begin, files))
        time.sleep(0.1)
    return timeline


def wait_for(moment: Moment, driver: subprocess.Popen[bytes], written: WrittenFiles) -> None:
    """Return at the given moment, or at the end of the run."""
    reached = None
    while driver.poll() is None and (files := written.count()) <= moment.files:
        if files == moment.files:
            reached = reached or time.monotonic()
            if time.monotonic() - reached >= moment.delay:
                return
        time.sleep(0.05)


@contextlib.contextmanager
def serve_pool(folder: Path) -> Iterator[tuple[dict[str, str], Proxy, Path]]:
    """Serve a pool on S3 behind a proxy; yields environment, proxy and configuration file."""
    write_pool(folder / "s3" / "chaos" / "pool", shards=8, samples=60)
    config = {
        "input": "s3://chaos/pool",
        "work_dir": "s3://chaos/work",
        "output": "s3://chaos/output",
        "embed": {"model": "demo", "batch_size": 16},
        "select": {"fraction": 0.3},
        "write": {"samples_per_shard": 20},
        "report": {"gallery": 2},
        "ray": {"workers": 3},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    with s3_server.serve(folder / "s3") as server:
        proxy = Proxy(int(server.endpoint.rpartition(":")[2]))
        changes = {
            **server.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "PYTHONPATH": processes.PYTHONPATH,
        }
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "AWS_PROFILE")
        }
        try:
            yield inherited | changes | QUIET, proxy, folder / "run.yaml"
        finally:
            proxy.close()


def start_driver(config: Path, address: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the command under test."""
    command = [
        sys.executable,
        "-m",
        "d2prune.cli.main",
        "run",
        "--config",
        str(config),
        "--set",
        f"ray.address={address}",
    ]
    return subprocess.Popen(
        command, cwd=processes.ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=open_log(config)
    )


def open_log(config: Path) -> int:
    """Open the log that all attempts of a driver append to."""
    return os.open(config.with_name("driver.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def inject(
    event: str, cluster: RayCluster, driver: subprocess.Popen[bytes], proxy: Proxy, rng: random.Random
) -> bool:
    """Inject a fault. Returns False if there is no process to kill yet."""
    if event in ("worker", "actor"):
        wanted = "ray::" if event == "worker" else "Actor"
        found = sorted(pid for pid, title in cluster.workers().items() if wanted in title)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
    elif event == "driver":
        driver.kill()
    elif event == "store unreachable for 20 s":
        proxy.interrupt(20)
    else:
        cluster.send_command(event)
    return True


def inject_when_possible(
    event: str, cluster: RayCluster, driver: subprocess.Popen[bytes], proxy: Proxy, rng: random.Random
) -> str:
    """Inject a fault as soon as possible; returns "yes", or "too late" after the end of the run."""
    while driver.poll() is None:
        if inject(event, cluster, driver, proxy, rng):
            return "yes"
        time.sleep(0.05)
    return "too late"


def run_with_event(
    event: str | None, moment: Moment | None, rng: random.Random
) -> tuple[dict[str, Any], Tree, Timeline]:
    """Run the pipeline with one fault, or undisturbed if `event` is None.

    Returns:
        The row of the table, the files of the output, and the timeline (empty with a fault).
    """
    with (
        tempfile.TemporaryDirectory(prefix="d2prune-chaos-") as folder,
        serve_pool(Path(folder)) as (environment, proxy, config),
    ):
        bucket, timeline = Path(folder) / "s3" / "chaos", Timeline()
        cluster, written = RayCluster(environment), WrittenFiles(bucket)
        begin = time.monotonic()
        row: dict[str, Any] = {"event": event, "stage": "", "hit": "", "codes": []}
        codes = row["codes"]
        try:
            while len(codes) < 4 and (not codes or codes[-1] != 0):
                if event == "head" and codes:
                    cluster.close()
                    cluster = RayCluster(environment)
                driver = start_driver(config, cluster.address, environment)
                if event is None:
                    timeline = record_timeline(driver, written)
                elif moment is not None and not codes:
                    wait_for(moment, driver, written)
                    row["stage"] = written.stage
                    row["hit"] = inject_when_possible(event, cluster, driver, proxy, rng)
                try:
                    codes.append(driver.wait(LIMIT_S))
                except subprocess.TimeoutExpired:
                    driver.kill()
                    driver.wait()
                    codes.append("hung")
            row["s"] = round(time.monotonic() - begin, 1)
        finally:
            cluster.close()
        if codes != [0]:
            print((Path(folder) / "driver.log").read_text()[-3000:], file=sys.stderr)
        return row, tree(bucket / "output"), timeline


def main() -> int:
    """Make the undisturbed run and all disturbed ones, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30, help="number of disturbed runs (%(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seed of the first run; decides event and moment"
    )
    arguments = parser.parse_args()
    undisturbed, expected, timeline = run_with_event(None, None, random.Random())
    if undisturbed["codes"] != [0] or not expected:
        raise SystemExit(f"the undisturbed run failed: {undisturbed}")
    print(
        f"undisturbed: {undisturbed['s']} s, {timeline[-1][1]} files written, "
        f"{len(expected)} of them in the output\n"
    )
    print("| seed | event | after files | during | hit | exit codes | wall s | same bytes |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    good = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.runs):
        rng = random.Random(seed)
        moment = pick_moment(timeline, rng)
        row, output, _ = run_with_event(EVENTS[seed % len(EVENTS)], moment, rng)
        same = output == expected and row["hit"] == "yes"
        good += same
        codes = ", ".join(map(str, row["codes"]))
        bytes_ = "yes" if output == expected else "NO"
        cells = (seed, row["event"], moment.files, row["stage"], row["hit"], codes, row["s"], bytes_)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{good} of {arguments.runs} events hit and the run ended with the bytes of the undisturbed run")
    return 0 if good == arguments.runs else 1


if __name__ == "__main__":
    sys.exit(main())
