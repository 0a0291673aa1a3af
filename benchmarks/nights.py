"""Nights in a row: graphs built from the one before, killed in between, and compared with full builds.

    python -m benchmarks.nights --nights 30

Every night adds, removes and replaces shards at random. A child process builds the graph and gets
SIGKILL after a random time, several times; then one builds it to the end. A full build in a fresh
folder, with the quantiser of the night before, must give the same bytes. Reads nothing; writes to a
temporary folder; prints one line per night.
"""

import argparse
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.graph import pool_blocks
from benchmarks.incremental import build_night, digest, write_parts
from d2prune.graph.params import GraphParams, Layout
from d2prune.graph.trained import copy_trained
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest, Receipt

PARAMS = GraphParams("image", 5, None, 60, 6, 0, None, 0.0)


def run_child(build: Callable[[], Manifest], seconds: float | None = None) -> str | None:
    """Build in a child process; return the fingerprint, or None if it was killed after some seconds.

    This process itself builds nothing: OpenMP's threads do not survive a fork.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, build().fingerprint.encode())
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = os.read(read, 64).decode()
    os.close(read)
    return found or None


def read(work_dir: Path, fingerprint: str | None) -> Manifest:
    """Read the manifest of a graph that a child built."""
    assert fingerprint is not None, "the build failed"
    manifest = artifacts.read_manifest(str(work_dir / "graph"), fingerprint)
    assert manifest is not None
    return manifest


def change(
    rng: np.random.Generator,
    parts: Mapping[str, Receipt],
    spare: list[str],
    everything: Mapping[str, Receipt],
) -> dict[str, Receipt]:
    """Add, remove and replace up to two shards each."""
    names = rng.permutation(list(parts)).tolist()
    removed, replaced, added = rng.integers(0, 3, 3).tolist()
    left = {name: parts[name] for name in names[removed:]}
    for name in names[removed : removed + replaced]:
        left[name] = everything[spare.pop()]
    for _ in range(added):
        left[f"p{rng.integers(0, 10**6):06d}"] = everything[spare.pop()]
    return left


def main() -> None:
    """Run the nights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--shards", type=int, default=20, help="of the first pool")
    parser.add_argument("--rows", type=int, default=200, help="in each shard")
    parser.add_argument("--kills", type=int, default=2, help="at most, per night")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    layout = Layout(whole_below=0, partitions=3, buckets=2)
    n_shards = options.shards + 6 * options.nights
    rows = np.concatenate([block.astype(np.float16) for block in pool_blocks(n_shards * options.rows, 64)])
    with tempfile.TemporaryDirectory(prefix="d2prune-nights-") as folder:
        chain = Path(folder, "chain")
        everything: dict[str, Receipt] = {}
        for number in range(n_shards):
            block = rows[number * options.rows : (number + 1) * options.rows]
            everything |= write_parts(str(chain / "embed"), block, f"s{number:06d}-")
        spare = sorted(everything)
        pool = {f"p{number:06d}": everything[spare.pop()] for number in range(options.shards)}
        latest = read(chain, run_child(lambda: build_night(chain, pool, PARAMS, layout)[0]))
        kills = 0
        for night in range(1, options.nights + 1):
            pool = change(rng, pool, spare, everything)
            given, before, ordered = latest.facts["quantiser"], latest.fingerprint, pool

            def build(work_dir: Path, previous: str | None = None) -> Manifest:
                return build_night(work_dir, ordered, PARAMS, layout, given, previous)[0]  # noqa: B023

            killed, started = 0, time.perf_counter()
            for _ in range(int(rng.integers(0, options.kills + 1))):
                if run_child(lambda: build(chain, before), float(rng.uniform(0, 2))) is None:  # noqa: B023
                    killed += 1
            found = run_child(lambda: build(chain, before))  # noqa: B023
            other = Path(folder, f"full-{night}")
            other.mkdir()
            (other / "embed").symlink_to(chain / "embed")
            copy_trained(str(chain / "graph"), str(other / "graph"), given)
            manifest, full = read(chain, found), read(other, run_child(lambda: build(other)))  # noqa: B023
            assert manifest == full, f"night {night}: another manifest"
            assert digest(chain, manifest) == digest(other, full), f"night {night}: other bytes"
            kills += killed
            latest = manifest
            unused = manifest.facts.get("unused_quantiser", "")
            rows_now = sum(receipt.rows("samples.parquet") for receipt in pool.values())
            print(
                f"night {night}: {len(pool)} shards, {rows_now} rows, killed {killed} times, equal, "
                f"recall {manifest.facts['recall']:.3f}, {time.perf_counter() - started:.1f} s {unused}",
                flush=True,
            )
        print(f"{options.nights} nights, {kills} kills: every graph equals a full build's, byte for byte")


if __name__ == "__main__":
    main()
