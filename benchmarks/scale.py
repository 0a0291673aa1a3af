"""CPU time and peak memory of graph, ranking and selection on large synthetic pools.

    python -m benchmarks.scale --rows 1000000 10000000 --folder /scratch/scale

Writes an embed artifact of clustered rows (one part in memory at a time) and all later artifacts to
`--folder`. The measurements of each unit are appended to `measured.jsonl` there: after a kill, the
same command does the remaining work and reports all of it. The steps of the graph and the selection
run in fresh processes, the ranking on actors of a local Ray. A peak is that of one process and
includes what it has read from Ray's object store.

Prints a markdown table and, between consecutive sizes, the exponent of N in the CPU time and the
growth of the largest worker.
"""

import argparse
import collections
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.graph_stage import FreshProcesses, peak_mib
from benchmarks.processes import RayWorkerMonitor
from d2prune.execution import OnRay, Resources
from d2prune.graph import build as graph_stage
from d2prune.graph.params import GraphParams, Layout
from d2prune.parts.reader import Parts
from d2prune.rank.params import RankParams
from d2prune.rank.ranking import rank as rank_pool
from d2prune.select.params import SelectParams
from d2prune.select.thresholds import find_thresholds
from d2prune.select.worker import SelectWorker, plan_select
from d2prune.stage import units as stages
from d2prune.store import artifacts, columns, schemas
from d2prune.store.artifacts import Manifest, Receipt

PART_ROWS = 50_000
ROWS_PER_CLUSTER = 500
ONE_CORE = Resources()


def make_part(folder: str, n_dims: int, clusters: int, bounds: tuple[int, int]) -> Receipt:
    """Commit rows [start, stop) around centres with Pareto weights that all parts share."""
    start, stop = bounds
    finished = artifacts.read_receipt(folder, f"{start:010d}")
    if finished is not None:
        return finished
    shared = np.random.default_rng(0)
    centres_CD = shared.standard_normal((clusters, n_dims), dtype=np.float32)
    weights = shared.pareto(1.5, clusters) + 0.05
    rng = np.random.default_rng([1, start])
    rows_ND = centres_CD[rng.choice(clusters, stop - start, p=weights / weights.sum())]
    rows_ND += 0.7 * rng.standard_normal(rows_ND.shape, dtype=np.float32)
    # Falling scales, as in real embeddings: the intrinsic dimension is lower than the number of
    # columns.
    rows_ND *= np.arange(1, n_dims + 1, dtype=np.float32) ** -0.5
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    vectors = columns.vector_column(rows_ND.astype(np.float16))
    count = stop - start
    table = {
        "shard": pa.array([f"{start:010d}"] * count),
        "key": pa.array([f"{i:09d}" for i in range(count)]),
        "uid": pa.array([f"{start + i:032x}" for i in range(count)]),
        "clip_score": pa.array(rng.random(count, dtype=np.float32)),
        "caption": pa.array([""] * count),
        **{
            name: pa.array(np.zeros(count), kind)
            for name, kind in (("width", pa.int32()), ("height", pa.int32()))
        },
        **{name: pa.array(np.zeros(count), pa.int64()) for name in ("offset", "size")},
        **{
            name: pa.nulls(count, schemas.samples().field(name).type) for name in ("checksum", "image_sha256")
        },
    }
    files = {
        "samples.parquet": pa.table(table, schema=schemas.samples()),
        "embeddings.parquet": pa.table({"image_emb": vectors}),
    }
    return artifacts.commit_unit(folder, f"{start:010d}", files, {"embedded": count})


class Measurements:
    """The measurements of all units, in files that a resumed run appends to."""

    def __init__(self, folder: Path) -> None:
        self._file, self._wall = folder / "measured.jsonl", folder / "wall.txt"

    def add(self, step: str, unit: str, seconds: float, mib: float) -> None:
        """Record the CPU seconds and the peak MiB of one unit."""
        # Units of the selection have the number of their part as key.
        step = "select" if step.isdecimal() else step
        with self._file.open("a") as stream:
            stream.write(json.dumps([step, unit, seconds, mib]) + "\n")

    def totals(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return CPU seconds and peak MiB by step; if a unit ran twice, its last run counts."""
        last = {(step, unit): (seconds, mib) for step, unit, seconds, mib in self._read_lines()}
        seconds: dict[str, float] = collections.defaultdict(float)
        mib: dict[str, float] = collections.defaultdict(float)
        for (step, _), (cpu, peak) in last.items():
            seconds[step] += cpu
            mib[step] = max(mib[step], peak)
        return dict(seconds), dict(mib)

    def add_wall(self, seconds: float) -> float:
        """Record the wall seconds of a finished run and return the sum over all of them."""
        with self._wall.open("a") as stream:
            stream.write(f"{seconds}\n")
        return sum(map(float, self._wall.read_text().split()))

    def _read_lines(self) -> Iterator[Any]:
        if self._file.exists():
            yield from map(json.loads, self._file.read_text().splitlines())


def rank(parts: Parts, folder: str, members: int, measurements: Measurements) -> list[Receipt]:
    """Rank the pool on `members` actors of a local Ray, each with a range of parts."""
    executor = OnRay(num_cpus=members)
    try:
        with RayWorkerMonitor() as monitor:
            params = RankParams("clip_score", 0.0, 1.0, 1.0)
            receipts = rank_pool(parts, folder, params, 0.0, executor, Resources(workers=members))
    finally:
        executor.close()
    for number, pid in enumerate(monitor.mib):
        measurements.add("rank", str(number), monitor.seconds[pid], monitor.mib[pid])
    return receipts


def select(parts: Parts, ranks: Manifest, folder: str, executor: FreshProcesses) -> int:
    """Keep 30 % of the pool, check the number of kept samples, and return it."""
    params = SelectParams(0.3, None, None, None)
    thresholds = find_thresholds(parts, params, ranks.counters["ranked"])
    units = plan_select(ranks.units, thresholds, None)
    worker = partial(SelectWorker, parts, folder)
    receipts = stages.run_units(stages.Work("select", folder, units, worker, ONE_CORE), executor)
    kept = artifacts.sum_counters(receipts)["kept"]
    if kept != thresholds.budget or kept != math.floor(0.3 * len(parts)):
        raise AssertionError(f"selection: found {kept} kept samples; expected {thresholds.budget}")
    return kept


@dataclass(frozen=True)
class Options:
    """The parsed command line."""

    rows: Sequence[int]
    dims: int
    recall: float
    rows_per_member: int
    workers: int
    folder: Path


def measure(n_rows: int, options: Options) -> tuple[dict[str, float], dict[str, float], float]:
    """Run all stages on a pool of `n_rows`.

    Returns:
        CPU seconds by step, peak MiB by step, and the wall seconds of all steps.
    """
    root = options.folder / f"{n_rows}"
    root.mkdir(parents=True, exist_ok=True)
    folders = {name: str(root / name) for name in ("embed", "graph", "rank", "select")}
    bounds = [(start, min(start + PART_ROWS, n_rows)) for start in range(0, n_rows, PART_ROWS)]
    make = partial(make_part, folders["embed"], options.dims, max(16, n_rows // ROWS_PER_CLUSTER))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        parts = tuple(process.map(make, bounds))

    measurements, begin = Measurements(root), time.monotonic()
    executor = FreshProcesses(options.workers, None, measurements.add)
    params = GraphParams("image", 5, options.recall, None, None, 0, None, 0.0)
    layout = Layout(whole_below=0)
    job = graph_stage.plan_job(
        Parts(str(root), {"embed": parts}), {"embed": "scale"}, folders["graph"], params, layout
    )
    job, graph = graph_stage.build_graph(job, executor, ONE_CORE, ONE_CORE)
    facts = job.facts
    members = max(2, -(-n_rows // options.rows_per_member))
    ranked = rank(Parts(str(root), {"embed": parts, "graph": graph}), folders["rank"], members, measurements)
    ranks = Manifest("rank", "scale", {}, {}, tuple(ranked), artifacts.sum_counters(ranked))
    kept = select(Parts(str(root), {"embed": parts, "rank": ranked}), ranks, folders["select"], executor)
    measurements.add("driver", str(os.getpid()), time.process_time(), peak_mib())
    seconds, mib = measurements.totals()
    reached = f"{facts['nprobe']} of {facts['nlist']} lists, recall {facts['recall']:.3f}"
    print(
        f"<!-- {n_rows:,} rows: {reached}; {job.partitions} graph partitions, {members} ranking workers; "
        f"{kept:,} kept -->",
        flush=True,
    )
    return seconds, mib, measurements.add_wall(time.monotonic() - begin)


def make_table(options: Options) -> Iterator[str]:
    """Measure every size and yield the lines of the table."""
    found = [measure(n_rows, options) for n_rows in options.rows]
    names = list(found[-1][0])
    yield f"| rows | measure | {' | '.join(names)} | all |"
    yield "|---" * (len(names) + 3) + "|"
    for n_rows, (seconds, mib, wall) in zip(options.rows, found, strict=True):
        cells = " | ".join(f"{seconds[name]:.1f}" for name in names)
        yield f"| {n_rows:,} | CPU s | {cells} | {sum(seconds.values()):.1f} ({wall:.0f} s wall) |"
        cells = " | ".join(f"{mib[name]:.0f}" for name in names)
        yield f"| {n_rows:,} | MiB | {cells} | {max(mib.values()):.0f} |"
    for (small, one), (large, other) in itertools.pairwise(zip(options.rows, found, strict=True)):
        exponent = math.log(sum(other[0].values()) / sum(one[0].values())) / math.log(large / small)
        growth = max(other[1].values()) / max(one[1].values())
        yield (
            f"\n{small:,} to {large:,} rows: CPU time grows as N^{exponent:.2f}, "
            f"the largest worker {growth:.2f} times"
        )


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="sizes of the pool"
    )
    parser.add_argument("--dims", type=int, default=32)
    parser.add_argument("--recall", type=float, default=0.9, help="target recall (%(default)s)")
    parser.add_argument(
        "--rows-per-member", type=int, default=1_250_000, help="rows of a ranking worker (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=1, help="parallel processes (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="keeps all artifacts, to resume after a kill (default: temporary)"
    )
    values = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="d2prune-scale-") as temporary:
        options = Options(**values | {"folder": values["folder"] or Path(temporary)})
        for line in make_table(options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
