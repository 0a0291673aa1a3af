"""How fast resharding is: beside `cat` of the same bytes, beside a plain webdataset loop, and from and to S3.

Makes a pool of random payloads (nothing here decodes an image), then times in turns, several
rounds, one process each:

- `cat`: reading the whole pool once, plus writing as many bytes as are kept;
- a plain webdataset loop that keeps samples by uid;
- d2prune with the byte ranges known (the write stage of a run), and stand-alone (indexing the tars first).

Before each of them, outside the clock, as many bytes as are kept are written and removed: of memory
that has lain free for seconds a virtual machine gives pages back to its host, and whoever writes
next waits for the host's page faults (here 1.4-1.8 s of CPU for 0.7 GB, against 0.14 s). Otherwise
what follows the long webdataset loop pays for it.

With `--s3` the same, one round, from and to an S3 server on loopback, beside its own get and put
limits. Prints a markdown page:
`python -m benchmarks.reshard --folder /tmp/bench --gigabytes 2 --s3`
"""

import argparse
import hashlib
import json
import logging
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from d2prune import store
from d2prune.demo import s3_server
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding
from d2prune.output import subset
from d2prune.reshard import reshard

PER_SHARD = 10_000
MEAN_BYTES = 35_000
"""Of a sample in DataComp's small pool: 450 GB, 12.8 million samples."""
FRACTION = 0.3


def make_pool(folder: Path, size: int, seed: int = 0) -> list[str]:
    """Write tars of about `size` bytes together, unless they are there; returns all uids."""
    shards = max(1, round(size / (PER_SHARD * MEAN_BYTES)))
    folder.mkdir(parents=True, exist_ok=True)
    uids = [hashlib.md5(f"{s}-{i}".encode()).hexdigest() for s in range(shards) for i in range(PER_SHARD)]
    generator = np.random.default_rng(seed)
    noise = generator.bytes(2**24)
    for shard in range(shards):
        path = folder / f"{shard:08d}.tar"
        sizes = np.clip(
            generator.lognormal(np.log(MEAN_BYTES) - 0.32, 0.8, PER_SHARD), 2_000, 2_000_000
        ).astype(int)
        starts = generator.integers(0, len(noise) - 2_000_000, PER_SHARD)
        if path.exists():
            continue
        with open(path, "wb", buffering=2**20) as tar:
            for i, (start, length) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
                uid, key = uids[shard * PER_SHARD + i], f"{shard:05d}{i:04d}"
                text = f"a caption of some words for {key}".encode()
                record = json.dumps(
                    {"uid": uid, "key": key, "url": f"https://example.org/{key}.jpg"}
                ).encode()
                for extension, data in (
                    ("jpg", noise[start : start + length]),
                    ("json", record),
                    ("txt", text),
                ):
                    tar.write(member_header(f"{key}.{extension}", len(data)) + data + padding(len(data)))
            tar.write(END_OF_ARCHIVE)
    return uids


def cat(pool: Path, out: Path, kept: Path) -> None:
    """Read the pool once, and copy what is kept, which lies ready in tars of its own."""
    out.mkdir()
    subprocess.run(f"cat {pool}/*.tar > /dev/null", shell=True, check=True)
    subprocess.run(f"cat {kept}/*.tar > {out}/kept", shell=True, check=True)


def webdataset_loop(pool: Path, out: Path, wanted: frozenset[str]) -> None:
    """What one writes by hand."""
    import webdataset

    out.mkdir()
    urls = sorted(str(path) for path in pool.glob("*.tar"))
    with webdataset.ShardWriter(f"{out}/%08d.tar", maxcount=PER_SHARD, maxsize=1e12, verbose=0) as sink:
        for sample in webdataset.WebDataset(urls, shardshuffle=False):
            uid = json.loads(sample["json"])["uid"]
            if uid in wanted:
                sink.write({"__key__": uid, **{name: sample[name] for name in ("jpg", "json", "txt")}})


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock, and of CPU (user and system, children included)."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """CPU this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def touch_memory(folder: Path, size: int) -> None:
    """Write and remove a file; see the module's text."""
    block = bytes(2**20)
    with open(folder / "touched", "wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
    (folder / "touched").unlink()


def rounds(
    count: int, tasks: dict[str, Callable[[], object]], clean: Callable[[], None], folder: Path, share: int
) -> dict[str, Taken]:
    """Medians for each task; the tasks take turns, so that a busy spell of the machine hits all."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(count):
        for name, task in tasks.items():
            clean()
            touch_memory(folder, share)
            start, cpu = time.perf_counter(), cpu_seconds()
            task()
            taken[name].append((time.perf_counter() - start, cpu_seconds() - cpu))
    clean()
    return {
        name: Taken(*(statistics.median(column) for column in zip(*v, strict=True)))
        for name, v in taken.items()
    }


def local(pool: Path, folder: Path, chosen: list[str], repeats: int) -> tuple[dict[str, Taken], int]:
    """Median seconds on a local disk, and the bytes written."""
    out, subset_url, work = folder / "out", str(folder / "subset.npy"), str(folder / "work")
    Path(subset_url).write_bytes(subset.to_bytes(subset.encode(chosen)))

    def clean() -> None:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(Path(work) / "write", ignore_errors=True)

    clean()
    reshard.reshard(str(pool), subset_url, str(out), work_dir=work)
    share = sum(path.stat().st_size for path in out.glob("*.tar"))
    kept = folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    out.rename(kept)
    wanted = frozenset(chosen)
    tasks: dict[str, Callable[[], object]] = {
        "`cat`: pool read once, kept share written": lambda: cat(pool, out, kept),
        "plain webdataset loop": lambda: webdataset_loop(pool, out, wanted),
        "d2prune, byte ranges known": lambda: reshard.reshard(str(pool), subset_url, str(out), work_dir=work),
        "d2prune, stand-alone": lambda: reshard.reshard(str(pool), subset_url, str(out)),
    }
    return rounds(repeats, tasks, clean, folder, share), share


def over_s3(pool: Path, folder: Path, share: int, repeats: int) -> dict[str, Taken]:
    """Median seconds from and to an S3 server on loopback."""
    served, work = folder / "s3", str(folder / "work-s3")
    (served / "out").mkdir(parents=True, exist_ok=True)
    if not (served / "pool").exists():
        shutil.copytree(pool, served / "pool", copy_function=os.link)
    some = sorted(pool.glob("*.tar"))
    names = [f"s3://pool/{path.name}" for path in some]
    subset_url = str(folder / "subset.npy")
    with s3_server.serve(served) as server, s3_server.environment(server):

        def clean() -> None:
            store.delete([file.url for file in store.list_files("s3://out")])
            shutil.rmtree(Path(work) / "write", ignore_errors=True)

        def get() -> None:
            for name in names:
                with store.open_read(name) as stream:
                    while stream.read(2**23):
                        pass

        def put() -> None:
            with store.writer("s3://out/kept") as sink, open(some[0], "rb") as source:
                left = share
                while left > 0:
                    block = source.read(min(left, 2**23))
                    if not block:
                        source.seek(0)
                        continue
                    sink.write(block)
                    left -= len(block)

        clean()
        reshard.reshard("s3://pool", subset_url, "s3://out/r", work_dir=work)
        tasks: dict[str, Callable[[], object]] = {
            "get: pool read once, one stream": get,
            "put: kept share written": put,
            "d2prune, byte ranges known": lambda: reshard.reshard(
                "s3://pool", subset_url, "s3://out/r", work_dir=work
            ),
            "d2prune, stand-alone": lambda: reshard.reshard("s3://pool", subset_url, "s3://out/r"),
        }
        return rounds(repeats, tasks, clean, folder, share)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time resharding; see the file's first lines.")
    parser.add_argument("--folder", type=Path, required=True, help="for pool and output; the pool is kept")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="from and to S3 on loopback as well")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    pool = arguments.folder / "pool"
    uids = make_pool(pool, int(arguments.gigabytes * 1e9))
    size = sum(path.stat().st_size for path in pool.glob("*.tar"))
    picks = np.random.default_rng(1).choice(len(uids), round(FRACTION * len(uids)), replace=False)
    chosen = [uids[i] for i in np.sort(picks)]
    seconds, share = local(pool, arguments.folder, chosen, arguments.repeats)
    base, loop = list(seconds.values())[:2]
    print("# Resharding: measured\n")
    print(
        f"{len(chosen):,} of {len(uids):,} samples chosen at random ({share / 1e9:.2f} of {size / 1e9:.2f} GB), median "
        f"of {arguments.repeats} rounds in turns, one process each, page cache warm.\n"
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end; on a busy "
        "machine CPU seconds tell more than the clock.\n"
    )
    print("## Local disk\n")
    print("| | s | CPU s | pool MB/s | speed of `cat` | speed of the webdataset loop | the same by CPU |")
    print("|---|---|---|---|---|---|---|")
    for name, taken in seconds.items():
        print(
            f"| {name} | {taken.wall:.2f} | {taken.cpu:.2f} | {size / taken.wall / 1e6:,.0f} | "
            f"{base.wall / taken.wall:.2f}x | {loop.wall / taken.wall:.1f}x | "
            f"{base.cpu / taken.cpu:.2f}x, {loop.cpu / taken.cpu:.1f}x |"
        )
    if arguments.s3:
        times = over_s3(pool, arguments.folder, share, 1)
        get, put = list(times.values())[:2]
        print("\n## From and to S3 on loopback (`rclone serve s3`)\n")
        print("| | s | CPU s | pool MB/s | speed of get, then put |\n|---|---|---|---|---|")
        for name, taken in times.items():
            print(
                f"| {name} | {taken.wall:.2f} | {taken.cpu:.2f} | {size / taken.wall / 1e6:,.0f} | "
                f"{(get.wall + put.wall) / taken.wall:.2f}x |"
            )


if __name__ == "__main__":
    main()
