"""s3fs compared with obstore: large objects and many small ranges, on S3 servers on loopback.

    pip install obstore 'moto[server]' localbucket
    python -m benchmarks.store --megabytes 256 --ranges 2000

Servers: `rclone serve s3` (compiled, checks signatures) and, if installed, `moto_server` and
`localbucket`. The latter two are written in Python and slower than either client, so that the
client's CPU time is more informative than wall time. Both clients make the same requests: parts of
16 MiB, ranged reads of 8 MiB, with equal concurrency. They alternate in several rounds.

Writes to temporary folders; prints a markdown table per server with medians of wall time and of the
CPU time of this process.
"""

import argparse
import contextlib
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2prune.demo import s3_server

BLOCK = 8 * 2**20
PART = 16 * 2**20
SMALL = 35_000
"""Mean bytes of a sample in DataComp's small pool."""

Client = Any


@dataclass(frozen=True)
class S3fs:
    """s3fs as `d2prune.store` uses it: one request per call, without retries."""

    filesystem: Any
    name: str = "s3fs"

    def put(self, key: str, data: bytes) -> None:
        """Write one object, in parts if it is large."""
        self.filesystem.pipe_file(key, data, chunksize=PART, max_concurrency=4)

    def get(self, key: str, start: int, size: int) -> bytes:
        """Read one range."""
        return bytes(self.filesystem.cat_file(key, start=start, end=start + size))


@dataclass(frozen=True)
class Obstore:
    """obstore's synchronous calls."""

    stores: Any
    name: str = "obstore"

    def put(self, key: str, data: bytes) -> None:
        """Write one object, in parts if it is large."""
        import obstore

        bucket, _, path = key.partition("/")
        obstore.put(self.stores[bucket], path, data, chunk_size=PART, max_concurrency=4)

    def get(self, key: str, start: int, size: int) -> bytes:
        """Read one range."""
        import obstore

        bucket, _, path = key.partition("/")
        found = obstore.get_range(self.stores[bucket], path, start=start, length=size)
        return memoryview(found)  # type: ignore


def make_clients(environment: dict[str, str], buckets: Sequence[str]) -> list[Client]:
    """Return both clients, connected to one server."""
    import s3fs
    from obstore.store import S3Store

    filesystem = s3fs.S3FileSystem(
        key=environment["AWS_ACCESS_KEY_ID"],
        secret=environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        config_kwargs={"retries": {"total_max_attempts": 1}, "response_checksum_validation": "when_required"},
    )
    stores = {
        bucket: S3Store(
            bucket,
            endpoint=environment["AWS_ENDPOINT_URL"],
            access_key_id=environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region="us-east-1",
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
        for bucket in buckets
    }
    return [S3fs(filesystem), Obstore(stores)]


@contextlib.contextmanager
def start_server(command: Sequence[str], port: int) -> Iterator[dict[str, str]]:
    """Run a server that listens on `port`; yields the environment that points clients to it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
                break
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
        }
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_bucket(environment: dict[str, str], name: str) -> None:
    """Create a bucket through botocore, independently of both clients."""
    from botocore.session import get_session

    get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    ).create_bucket(Bucket=name)


def make_tasks(
    client: Client, data: bytes, starts: Sequence[int]
) -> dict[str, tuple[Callable[[], object], float]]:
    """Return name -> (function that runs the task, bytes it transfers)."""
    key = "bench/object.tar"
    blocks = [(start, min(BLOCK, len(data) - start)) for start in range(0, len(data), BLOCK)]

    def read_blocks(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            assert sum(len(part) for part in pool.map(lambda b: client.get(key, *b), blocks)) == len(data)

    def read_ranges(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            got = list(pool.map(lambda start: client.get(key, start, SMALL), starts))
        assert all(
            bytes(part) == data[start : start + SMALL] for part, start in zip(got, starts, strict=True)
        )

    small = len(starts) * SMALL
    return {
        "put, one object": (lambda: client.put(key, data), len(data)),
        "get, 8 MiB blocks, 1 request at a time": (lambda: read_blocks(1), len(data)),
        "get, 8 MiB blocks, 4 concurrent requests": (lambda: read_blocks(4), len(data)),
        f"{len(starts):,} ranges of 35 KB, 1 request at a time": (lambda: read_ranges(1), small),
        f"{len(starts):,} ranges of 35 KB, 16 concurrent requests": (lambda: read_ranges(16), small),
    }


def measure(environment: dict[str, str], data: bytes, n_ranges: int, repeats: int) -> None:
    """Run every task with both clients in alternating rounds and print the rows of the table."""
    make_bucket(environment, "bench")
    both = make_clients(environment, ["bench"])
    starts = np.random.default_rng(1).integers(0, len(data) - SMALL, n_ranges).tolist()
    work = {client.name: make_tasks(client, data, starts) for client in both}
    for name in work[both[0].name]:
        taken: dict[str, list[tuple[float, float]]] = {client.name: [] for client in both}
        failed = ""
        for _ in range(repeats):
            for client in both:
                task, _bytes = work[client.name][name]
                wall, cpu = time.perf_counter(), time.process_time()
                try:
                    task()
                except Exception as error:
                    failed = f"{client.name} failed: {' '.join(str(error).split())[:90]}"
                    taken[client.name].append((float("inf"), float("inf")))
                    continue
                taken[client.name].append((time.perf_counter() - wall, time.process_time() - cpu))
        moved = work[both[0].name][name][1]
        s, o = ([statistics.median(column) for column in zip(*taken[c.name], strict=True)] for c in both)
        ratios = (failed, "") if failed else (f"{s[0] / o[0]:.1f}x", f"{s[1] / max(o[1], 0.005):.1f}x")
        print(
            f"| {name} | {moved / s[0] / 1e6:,.0f} | {moved / o[0] / 1e6:,.0f} | {ratios[0]} "
            f"| {s[1]:.2f} | {o[1]:.2f} | {ratios[1]} |",
            flush=True,
        )


def main() -> None:
    """Measure on every server and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=256, help="MiB of the large object (%(default)s)")
    parser.add_argument("--ranges", type=int, default=2000, help="number of small reads (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    arguments = parser.parse_args()
    data = np.random.default_rng(0).bytes(arguments.megabytes * 2**20)
    print(f"{os.cpu_count()} cores, {platform.machine()}; ", end="")
    print(f"median of {arguments.repeats} alternating rounds.\n")
    columns = (
        "s3fs MB/s",
        "obstore MB/s",
        "speed-up",
        "s3fs CPU s",
        "obstore CPU s",
        "CPU s, s3fs / obstore",
    )
    heading = f"\n| {{}} | {' | '.join(columns)} |\n{'|---' * 7}|"
    with tempfile.TemporaryDirectory() as folder, s3_server.serve(folder) as server:
        print(heading.format("rclone"))
        measure(dict(server.environment), data, arguments.ranges, arguments.repeats)
    programs = Path(sys.executable).parent
    for name in ("moto_server", "localbucket"):
        if (programs / name).exists():
            with tempfile.TemporaryDirectory() as folder:
                port = free_port()
                command = [
                    str(programs / name),
                    "--port",
                    str(port),
                    *([folder] if name == "localbucket" else []),
                ]
                with start_server(command, port) as environment:
                    print(heading.format(name))
                    measure(environment, data, arguments.ranges // 4, arguments.repeats)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
