"""s3fs against obstore: whole objects in and out, and many small ranges, side by side on S3 servers on loopback.

`rclone serve s3` (compiled, checks signatures) and, where installed, `moto_server` and
`localbucket` (Python: slower than either client, so there the client's own CPU tells more than the
clock). Each task runs in turns for both clients, several rounds; printed are medians of the clock
and of this process' CPU. Both clients make the same requests: parts of 16 MiB, ranged reads of 8
MiB, and as many at once. `pip install obstore 'moto[server]' localbucket`, then

    python -m benchmarks.store --megabytes 256 --ranges 2000
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d2prune.demo import s3_server

BLOCK = 8 * 2**20
PART = 16 * 2**20
SMALL = 35_000
"""Bytes of a sample in DataComp's small pool."""

Client = Any


@dataclass(frozen=True)
class S3fs:
    """What `d2prune.store` makes of fsspec's S3: one request per call, no retries of its own."""

    filesystem: Any
    name: str = "s3fs"

    def put(self, key: str, data: bytes) -> None:
        """One object, in parts where it is large."""
        self.filesystem.pipe_file(key, data, chunksize=PART, max_concurrency=4)

    def get(self, key: str, start: int, size: int) -> bytes:
        """One ranged read."""
        return bytes(self.filesystem.cat_file(key, start=start, end=start + size))


@dataclass(frozen=True)
class Obstore:
    """obstore's synchronous calls."""

    stores: Any
    name: str = "obstore"

    def put(self, key: str, data: bytes) -> None:
        """One object, in parts where it is large."""
        import obstore

        bucket, _, path = key.partition("/")
        obstore.put(self.stores[bucket], path, data, chunk_size=PART, max_concurrency=4)

    def get(self, key: str, start: int, size: int) -> bytes:
        """One ranged read."""
        import obstore

        bucket, _, path = key.partition("/")
        return memoryview(obstore.get_range(self.stores[bucket], path, start=start, length=size))  # type: ignore


def clients(environment: dict[str, str], buckets: Sequence[str]) -> list[Client]:
    """Both, for one server."""
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
def started(command: Sequence[str], port: int) -> Iterator[dict[str, str]]:
    """A server that is told its port, and the environment that points at it."""
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
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_bucket(environment: dict[str, str], name: str) -> None:
    """Through botocore, which neither client has a part in."""
    from botocore.session import get_session

    get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    ).create_bucket(Bucket=name)


def tasks(
    client: Client, data: bytes, starts: Sequence[int]
) -> dict[str, tuple[Callable[[], object], float]]:
    """Name -> what to do, and how many bytes it moves."""
    key = "bench/object.tar"
    blocks = range(0, len(data), BLOCK)

    def blocks_of(threads: int) -> None:
        read = [(start, min(BLOCK, len(data) - start)) for start in blocks]
        with ThreadPoolExecutor(threads) as pool:
            assert sum(len(part) for part in pool.map(lambda r: client.get(key, *r), read)) == len(data)

    def ranges(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            got = list(pool.map(lambda start: client.get(key, start, SMALL), starts))
        assert all(
            bytes(part) == data[start : start + SMALL] for part, start in zip(got, starts, strict=True)
        )

    small = len(starts) * SMALL
    return {
        "put, one object": (lambda: client.put(key, data), len(data)),
        "get, 8 MiB blocks, 1 at a time": (lambda: blocks_of(1), len(data)),
        "get, 8 MiB blocks, 4 at once": (lambda: blocks_of(4), len(data)),
        f"{len(starts):,} ranges of 35 kB, 1 at a time": (lambda: ranges(1), small),
        f"{len(starts):,} ranges of 35 kB, 16 at once": (lambda: ranges(16), small),
    }


def measure(environment: dict[str, str], data: bytes, n_ranges: int, repeats: int) -> None:
    """Both clients in turns; prints the rows."""
    make_bucket(environment, "bench")
    both = clients(environment, ["bench"])
    starts = np.random.default_rng(1).integers(0, len(data) - SMALL, n_ranges).tolist()
    work = {client.name: tasks(client, data, starts) for client in both}
    for name in work[both[0].name]:
        taken: dict[str, list[tuple[float, float]]] = {client.name: [] for client in both}
        failed = ""
        for _ in range(repeats):
            for client in both:
                task, _bytes = work[client.name][name]
                clock, cpu = time.perf_counter(), time.process_time()
                try:
                    task()
                except Exception as error:
                    failed = f"{client.name} fails: {' '.join(str(error).split())[:90]}"
                    taken[client.name].append((float("inf"), float("inf")))
                    continue
                taken[client.name].append((time.perf_counter() - clock, time.process_time() - cpu))
        moved = work[both[0].name][name][1]
        s, o = ([statistics.median(column) for column in zip(*taken[c.name], strict=True)] for c in both)
        ratios = (failed, "") if failed else (f"{s[0] / o[0]:.1f}x", f"{s[1] / max(o[1], 0.005):.1f}x")
        print(
            f"| {name} | {moved / s[0] / 1e6:,.0f} | {moved / o[0] / 1e6:,.0f} | {ratios[0]} "
            f"| {s[1]:.2f} | {o[1]:.2f} | {ratios[1]} |",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time s3fs and obstore; see the file's first lines.")
    parser.add_argument("--megabytes", type=int, default=256, help="of the object that is put and got")
    parser.add_argument("--ranges", type=int, default=2000, help="small reads")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    data = np.random.default_rng(0).bytes(arguments.megabytes * 2**20)
    print(
        f"Machine: {os.cpu_count()} cores, {platform.machine()}; median of {arguments.repeats} rounds in turns.\n"
    )
    heading = (
        "\n| {} | s3fs MB/s | obstore MB/s | faster | s3fs CPU s | obstore CPU s | less CPU |\n"
        + "|---" * 7
        + "|"
    )
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
                with started(command, port) as environment:
                    print(heading.format(name))
                    measure(environment, data, arguments.ranges // 4, arguments.repeats)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
