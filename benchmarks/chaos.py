"""Seeded accidents on a 3-node local Ray cluster, S3 to S3: the same command ends with the same bytes.

python -m benchmarks.chaos --runs 30

Each run has its own S3 server, cluster and driver (`d2prune run`), and one accident at a random
moment: a worker, an actor, a raylet, the driver or the head is killed, a node joins, or the store
refuses connections for 20 s. The moment is one of the undisturbed run, told by the files it had
written by then, so that it comes before the end however busy the machine is. A driver that fails is
started again with the same command (on a new cluster where the head died). The output is compared,
byte for byte, with that of an undisturbed run. Kills only what it started, by process id.
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

EVENTS = ("worker", "actor", "raylet", "driver", "head", "node joins", "store away 20 s")
ROOT = Path(__file__).resolve().parents[1]
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
    """A TCP proxy before the store, which can refuse everything for a while."""

    def __init__(self, target: int) -> None:
        self._target, self._away = target, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def away(self, seconds: float) -> None:
        """Break every connection and refuse new ones for so long."""
        self._away.set()
        time.sleep(seconds)
        self._away.clear()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self._away.is_set():
                return
            with (
                socket.create_connection(("127.0.0.1", self._target)) as server,
                selectors.DefaultSelector() as ready,
            ):
                ready.register(client, selectors.EVENT_READ, server)
                ready.register(server, selectors.EVENT_READ, client)
                while not self._away.is_set():
                    for key, _ in ready.select(0.5):
                        data = key.fileobj.recv(2**16)  # type: ignore[union-attr]
                        if not data:
                            return
                        key.data.sendall(data)


class RayCluster:
    """Three nodes in a process of their own, which takes orders by its standard input."""

    def __init__(self, environment: dict[str, str]) -> None:
        # On a busy machine a node may miss Ray's own limit of 30 s.
        for _ in range(5):
            self.process = self._start(environment)
            assert self.process.stdout is not None
            self.address = self.process.stdout.readline().strip()
            if self.address:
                return
            self.close()
        raise SystemExit("no cluster comes up")

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def order(self, what: str) -> None:
        """Have it do one of the things its script knows."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def workers(self) -> dict[int, str]:
        """Title by process id of the Ray workers below this cluster; not of agents, with which a raylet dies."""
        found = processes.below(self.process.pid)
        return {
            pid: title for pid, title in found.items() if title.startswith("ray::") and "Agent" not in title
        }

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        self.process.kill()


class Written:
    """How far a run is: the files that were ever seen in its folders."""

    def __init__(self, bucket: Path) -> None:
        """Look below `bucket`; the pool is not written by the run."""
        self._bucket, self._seen = bucket, set[Path]()
        self.stage = "start"

    def count(self) -> int:
        """So many by now; `stage` is where the newest lies."""
        for name in ("work", "output"):
            fresh = {path for path in (self._bucket / name).rglob("*") if path.is_file()} - self._seen
            for path in sorted(fresh):
                folders = path.relative_to(self._bucket).parts
                self.stage = folders[1] if name == "work" and len(folders) > 2 else self.stage
            self._seen |= fresh
        return len(self._seen)


@dataclass(frozen=True)
class Moment:
    """Of an undisturbed run: `files` were written, the last of them `delay` seconds ago."""

    files: int
    delay: float


Tree = dict[str, bytes]
Timeline = list[tuple[float, int]]
"""Seconds since the driver was started, and files written, whenever their number changed."""


def draw(timeline: Timeline, rng: random.Random) -> Moment:
    """A moment of the run, any second of it alike, before its last files."""
    at = rng.uniform(0.1, 0.97) * timeline[-1][0]
    since, files = max(entry for entry in timeline if entry[0] <= at)
    return Moment(files, at - since)


def follow(driver: subprocess.Popen[bytes], written: Written) -> Timeline:
    """Watch an undisturbed run to its end."""
    begin, timeline = time.monotonic(), [(0.0, 0)]
    while driver.poll() is None:
        if (files := written.count()) != timeline[-1][1]:
            timeline.append((time.monotonic() - begin, files))
        time.sleep(0.1)
    return timeline


def wait_for(moment: Moment, driver: subprocess.Popen[bytes], written: Written) -> None:
    """Return at that moment, or at the end of the run."""
    reached = None
    while driver.poll() is None and (files := written.count()) <= moment.files:
        if files == moment.files:
            reached = reached or time.monotonic()
            if time.monotonic() - reached >= moment.delay:
                return
        time.sleep(0.05)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[tuple[dict[str, str], Proxy, Path]]:
    """A store with the pool in it, a proxy before it, and the environment that leads there."""
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
        leads = {
            **server.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "PYTHONPATH": str(ROOT),
        }
        clean = {
            name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "AWS_PROFILE")
        }
        try:
            yield clean | leads | QUIET, proxy, folder / "run.yaml"
        finally:
            proxy.close()


def start(config: Path, address: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The command under test."""
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
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=open_log(config)
    )


def open_log(config: Path) -> int:
    """Where all tries of a driver write."""
    return os.open(config.with_name("driver.log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def strike(
    event: str, cluster: RayCluster, driver: subprocess.Popen[bytes], proxy: Proxy, rng: random.Random
) -> bool:
    """Make the accident happen; False: there was nothing to hit."""
    if event in ("worker", "actor"):
        wanted = "ray::" if event == "worker" else "Actor"
        found = sorted(pid for pid, title in cluster.workers().items() if wanted in title)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
    elif event == "driver":
        driver.kill()
    elif event == "store away 20 s":
        proxy.away(20)
    else:
        cluster.order(event)
    return True


def hit(
    event: str, cluster: RayCluster, driver: subprocess.Popen[bytes], proxy: Proxy, rng: random.Random
) -> str:
    """Make the accident happen as soon as there is something to hit."""
    while driver.poll() is None:
        if strike(event, cluster, driver, proxy, rng):
            return "yes"
        time.sleep(0.05)
    return "too late"


def one(
    event: str | None, moment: Moment | None, rng: random.Random
) -> tuple[dict[str, Any], Tree, Timeline]:
    """One run with an accident at a moment, or undisturbed; what happened, the output and how it went."""
    with (
        tempfile.TemporaryDirectory(prefix="d2prune-chaos-") as place,
        stage(Path(place)) as (leads, proxy, config),
    ):
        cluster, written, timeline = RayCluster(leads), Written(Path(place) / "s3" / "chaos"), Timeline()
        begin = time.monotonic()
        row: dict[str, Any] = {"event": event, "stage": "", "hit": "", "codes": []}
        codes = row["codes"]
        try:
            while len(codes) < 4 and (not codes or codes[-1] != 0):
                if event == "head" and codes:
                    cluster.close()
                    cluster = RayCluster(leads)
                driver = start(config, cluster.address, leads)
                if event is None:
                    timeline = follow(driver, written)
                elif moment is not None and not codes:
                    wait_for(moment, driver, written)
                    row["stage"] = written.stage
                    row["hit"] = hit(event, cluster, driver, proxy, rng)
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
            print((Path(place) / "driver.log").read_text()[-3000:], file=sys.stderr)
        return row, tree(Path(place) / "s3" / "chaos" / "output"), timeline


def main() -> int:
    """Run them all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    calm, expected, timeline = one(None, None, random.Random())
    if calm["codes"] != [0] or not expected:
        raise SystemExit(f"the undisturbed run failed: {calm}")
    print(
        f"undisturbed: {calm['s']} s, {timeline[-1][1]} files written, {len(expected)} of them the output\n"
    )
    print("| seed | event | after files | in | hit | exit codes | s | same bytes |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    good = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.runs):
        rng = random.Random(seed)
        moment = draw(timeline, rng)
        row, output, _ = one(EVENTS[seed % len(EVENTS)], moment, rng)
        same = output == expected and row["hit"] == "yes"
        good += same
        codes = ", ".join(map(str, row["codes"]))
        bytes_ = "yes" if output == expected else "NO"
        cells = (seed, row["event"], moment.files, row["stage"], row["hit"], codes, row["s"], bytes_)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\n{good} of {arguments.runs} were hit and ended with the bytes of the undisturbed run")
    return 0 if good == arguments.runs else 1


if __name__ == "__main__":
    sys.exit(main())
