"""Deduplication of a stored graph: seconds and memory.

    python -m benchmarks.dedup --rows 1000000 --partitions 1,8

The pool is made up: groups of near-copies (a tenth of the rows in groups of two to twelve), each joined
to its nearest, other edges long and at random; a twentieth of the rows are exact copies of another.
Tables are written as a run would write them, then the stage runs in one process, with all its reads and
writes. Each row is measured in its own process, so that the peak memory is that of one run; with
one partition it is the memory of a worker that owns that many rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time

import numpy as np
import pyarrow as pa

from d2prune.dedup.driver import plan_dedup, run_dedup
from d2prune.dedup.params import DedupParams
from d2prune.execution import InProcess, Resources
from d2prune.knn.csr import Graph
from d2prune.knn.symmetrise import rows_from_edges
from d2prune.parts.files import NEIGHBORS, SAMPLES
from d2prune.parts.neighbors import to_table
from d2prune.parts.reader import Parts
from d2prune.store import artifacts

_NEAR = 0.95


def make_graph(n: int, seed: int = 0) -> Graph:
    """Return a symmetric graph of 6 to 7 edges a row, a tenth of the rows in groups of near-copies."""
    rng = np.random.default_rng(seed)
    rows, neighbours = np.repeat(np.arange(n), 3), rng.integers(0, n, 3 * n)
    distances = rng.uniform(0.3, 1.5, 3 * n).astype(np.float32)
    sizes = rng.integers(2, 13, n // 70)
    members = rng.permutation(n)[: sizes.sum()]
    # In a group, each member has an edge to each of the next ones, at most five.
    group = np.repeat(np.arange(len(sizes)), sizes)
    near = [(members[:-step], members[step:], group[step:] == group[:-step]) for step in range(1, 6)]
    left = np.concatenate([a[same] for a, _, same in near])
    right = np.concatenate([b[same] for _, b, same in near])
    rows, neighbours = np.concatenate([rows, left]), np.concatenate([neighbours, right])
    distances = np.concatenate([distances, rng.uniform(0, 0.12, len(left)).astype(np.float32)])
    low, high = np.minimum(rows, neighbours), np.maximum(rows, neighbours)
    _, first = np.unique(low * n + high, return_index=True)
    first = first[low[first] != high[first]]
    low, high, distances = low[first], high[first], distances[first]
    ends = np.concatenate([low, high]), np.concatenate([high, low])
    return rows_from_edges(*ends, np.concatenate([distances, distances]), 0, n)


def write_pool(folder: str, n: int, n_parts: int) -> Parts:
    """Write the tables that the stage reads."""
    graph, rng = make_graph(n), np.random.default_rng(1)
    content = np.where(rng.random(n) < 0.05, rng.integers(0, n, n), np.arange(n))
    hashes = np.zeros((n, 4), "<u8")
    hashes[:] = (content.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))[:, None]
    units: dict[str, list[artifacts.Receipt]] = {"embed": [], "graph": []}
    for part in range(n_parts):
        start, stop = n * part // n_parts, n * (part + 1) // n_parts
        samples = pa.table(
            {
                "uid": [f"{position:032x}" for position in range(start, stop)],
                "clip_score": rng.normal(0.25, 0.05, stop - start).astype(np.float32),
                "image_sha256": pa.array(map(bytes, hashes[start:stop]), pa.binary(32)),
            }
        )
        first, last = graph.indptr[[start, stop]]
        rows = Graph(
            graph.indptr[start : stop + 1] - first, graph.indices[first:last], graph.sq_distances[first:last]
        )
        table = to_table(rows, np.zeros(stop - start, bool))
        for stage, name, content_of in (("embed", SAMPLES, samples), ("graph", NEIGHBORS, table)):
            key = artifacts.unit_key(f"{part:08d}", stage)
            units[stage].append(artifacts.commit_unit(f"{folder}/{stage}", key, {name: content_of}))
    return Parts(folder, units)


def measure(
    parts: Parts, folder: str, exact: bool, partitions: int
) -> tuple[float, float, float, dict[str, int]]:
    """Return wall seconds, CPU seconds, GiB of peak memory and the counters of one run."""
    before = time.perf_counter(), time.process_time()
    params = DedupParams(exact, _NEAR, "clip_score")
    job = plan_dedup(parts, folder, f"{exact} {partitions}", params, partitions)
    receipts = run_dedup(job, InProcess(), Resources(workers=partitions))
    wall, cpu = time.perf_counter() - before[0], time.process_time() - before[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return wall, cpu, peak, artifacts.sum_counters(receipts)


def main() -> None:
    """Print one table row per number of rows and of partitions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="250000,1000000")
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--partitions", default="1,8")
    options = parser.parse_args()
    print("| rows | partitions | exact | wall | CPU | peak memory | duplicates | near-duplicates |")
    print("|---" * 8 + "|")
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="d2prune-dedup-") as folder:
        # Compiled kernels are cached on disk: the first run ever compiles them.
        parts = write_pool(folder, 1000, 2)
        for partitions in (1, 2):
            measure(parts, f"{folder}/dedup", True, partitions)
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory(prefix="d2prune-dedup-") as folder:
            parts = write_pool(folder, rows, options.parts)
            for partitions in map(int, options.partitions.split(",")):
                for exact in (False, True):
                    with spawn.Pool(1) as process:
                        wall, cpu, peak, counts = process.apply(
                            measure, (parts, f"{folder}/{exact}-{partitions}", exact, partitions)
                        )
                    cells = [f"{rows:,}", str(partitions), "yes" if exact else "no"]
                    cells += [f"{wall:.1f} s", f"{cpu:.1f} s", f"{peak:.2f} GiB"]
                    cells += [f"{counts[name]:,}" for name in ("duplicates", "near_duplicates")]
                    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
