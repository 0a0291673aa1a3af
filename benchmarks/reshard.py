"""Speed of resharding, compared with `cat` of the same bytes and with a plain webdataset loop.

    python -m benchmarks.reshard --folder /tmp/bench --gigabytes 2 --s3

Writes a pool of random payloads to `--folder` (no image is decoded), then times these tasks in
alternating rounds, one process each:

- `cat`: read the pool once and write the kept share;
- a plain webdataset loop that keeps samples by uid;
- d2prune with known byte ranges (the write stage of a run);
- d2prune stand-alone (indexes the tars first).

With `--s3`, also times one round from and to an S3 server on loopback, compared with plain gets and
puts. Prints a markdown page.

Before each task, outside the timing, as many bytes as are kept are written and removed. A virtual
machine returns memory that has been free for seconds to its host, and the next writer waits for the
host's page faults (1.4 to 1.8 s of CPU for 0.7 GB instead of 0.14 s). Without this, the task after
the long webdataset loop would pay for it.
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
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2prune import store
from d2prune.demo import s3_server
from d2prune.inputs.tar.write import END_OF_ARCHIVE, member_header, padding
from d2prune.output import subset
from d2prune.reshard import reshard

PER_SHARD = 10_000
MEAN_BYTES = 35_000
"""Mean size of a sample in DataComp's small pool (450 GB, 12.8 million samples)."""
FRACTION = 0.3


def make_pool(folder: Path, size: int, seed: int = 0) -> list[str]:
    """Write tars of about `size` bytes in total, unless they exist; returns all uids."""
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
    """Read the pool once, then copy the tars in `kept`, which hold the kept share."""
    out.mkdir()
    subprocess.run(f"cat {pool}/*.tar > /dev/null", shell=True, check=True)
    subprocess.run(f"cat {kept}/*.tar > {out}/kept", shell=True, check=True)


def webdataset_loop(pool: Path, out: Path, wanted: frozenset[str]) -> None:
    """Filter the pool as a hand-written script would."""
    import webdataset

    out.mkdir()
    urls = sorted(str(path) for path in pool.glob("*.tar"))
    with webdataset.ShardWriter(f"{out}/%08d.tar", maxcount=PER_SHARD, maxsize=1e12, verbose=0) as sink:
        for sample in webdataset.WebDataset(urls, shardshuffle=False):
            uid = json.loads(sample["json"])["uid"]
            if uid in wanted:
                sink.write({"__key__": uid, **{name: sample[name] for name in ("jpg", "json", "txt")}})


@dataclass(frozen=True)
class Seconds:
    """Wall seconds, and CPU seconds (user and system, including children)."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def touch_memory(folder: Path, size: int) -> None:
    """Write and remove a file of `size` bytes, for the reason in the module's docstring."""
    block = bytes(2**20)
    with open(folder / "touched", "wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
    (folder / "touched").unlink()


def time_tasks(
    count: int, tasks: dict[str, Callable[[], object]], clean: Callable[[], None], folder: Path, share: int
) -> dict[str, Seconds]:
    """Return the medians of `count` rounds in which tasks alternate, so that load affects all."""
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
        name: Seconds(*(statistics.median(column) for column in zip(*v, strict=True)))
        for name, v in taken.items()
    }


def time_local(pool: Path, folder: Path, chosen: list[str], repeats: int) -> tuple[dict[str, Seconds], int]:
    """Return the median seconds on a local disk, and the bytes of the kept share."""
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
        "`cat`: read the pool once, write the kept share": lambda: cat(pool, out, kept),
        "plain webdataset loop": lambda: webdataset_loop(pool, out, wanted),
        "d2prune, known byte ranges": lambda: reshard.reshard(str(pool), subset_url, str(out), work_dir=work),
        "d2prune, stand-alone": lambda: reshard.reshard(str(pool), subset_url, str(out)),
    }
    return time_tasks(repeats, tasks, clean, folder, share), share


def time_s3(pool: Path, folder: Path, share: int, repeats: int) -> dict[str, Seconds]:
    """Return the median seconds from and to an S3 server on loopback."""
    served, work = folder / "s3", str(folder / "work-s3")
    (served / "out").mkdir(parents=True, exist_ok=True)
    if not (served / "pool").exists():
        shutil.copytree(pool, served / "pool", copy_function=os.link)
    tars = sorted(pool.glob("*.tar"))
    names = [f"s3://pool/{path.name}" for path in tars]
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
            with store.writer("s3://out/kept") as sink, open(tars[0], "rb") as source:
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
            "get: read the pool once, one stream": get,
            "put: write the kept share": put,
            "d2prune, known byte ranges": lambda: reshard.reshard(
                "s3://pool", subset_url, "s3://out/r", work_dir=work
            ),
            "d2prune, stand-alone": lambda: reshard.reshard("s3://pool", subset_url, "s3://out/r"),
        }
        return time_tasks(repeats, tasks, clean, folder, share)


def main() -> None:
    """Time the tasks and print the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="for pool and output; the pool is not deleted"
    )
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the pool (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds on the local disk (%(default)s)")
    parser.add_argument("--s3", action="store_true", help="also measure from and to S3 on loopback")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    pool = arguments.folder / "pool"
    uids = make_pool(pool, int(arguments.gigabytes * 1e9))
    size = sum(path.stat().st_size for path in pool.glob("*.tar"))
    picks = np.random.default_rng(1).choice(len(uids), round(FRACTION * len(uids)), replace=False)
    chosen = [uids[i] for i in np.sort(picks)]
    measured, share = time_local(pool, arguments.folder, chosen, arguments.repeats)
    base, loop = list(measured.values())[:2]
    print("# Resharding\n")
    print(
        f"{len(chosen):,} of {len(uids):,} samples chosen at random, "
        f"{share / 1e9:.2f} of {size / 1e9:.2f} GB; median of {arguments.repeats} alternating rounds, "
        f"one process each, warm page cache.\n{os.cpu_count()} cores, {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f} at the end; with other load, CPU seconds are more reliable than "
        "wall seconds.\n"
    )
    print("| local disk | wall s | CPU s | pool MB/s | speed / `cat` | speed / webdataset loop ", end="")
    print("| the same by CPU time |\n|---|---|---|---|---|---|---|")
    for name, seconds in measured.items():
        print(
            f"| {name} | {seconds.wall:.2f} | {seconds.cpu:.2f} | {size / seconds.wall / 1e6:,.0f} | "
            f"{base.wall / seconds.wall:.2f}x | {loop.wall / seconds.wall:.1f}x | "
            f"{base.cpu / seconds.cpu:.2f}x, {loop.cpu / seconds.cpu:.1f}x |"
        )
    if arguments.s3:
        measured = time_s3(pool, arguments.folder, share, 1)
        get, put = list(measured.values())[:2]
        print("\n| from and to S3 on loopback (`rclone serve s3`, which shares the cores) ", end="")
        print("| wall s | CPU s | pool MB/s | speed / (get, then put) |\n|---|---|---|---|---|")
        for name, seconds in measured.items():
            print(
                f"| {name} | {seconds.wall:.2f} | {seconds.cpu:.2f} | {size / seconds.wall / 1e6:,.0f} | "
                f"{(get.wall + put.wall) / seconds.wall:.2f}x |"
            )


if __name__ == "__main__":
    main()
