"""A synthetic pool given as embeddings, from the graph to the selection: seconds and peak memory of each step's worker.

python -m benchmarks.scale --rows 1000000 10000000 --folder /scratch/scale

Reads nothing; writes an embed artifact of clustered rows (one part in memory at a time) and all
that follows below `--folder`, and to `measured.jsonl` there what each unit took: after a kill the
same command does what is left and tells of everything. Prints a markdown table and the slope
between consecutive sizes: the exponent of N in the CPU time, and the growth of the largest worker.
The graph's steps and the selection run in fresh processes, the ranking on actors of a local Ray; a
peak is the most that one process has held, with what it has seen of Ray's store.
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
from benchmarks.processes import Watch
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
ONE = Resources()


def make_part(folder: str, n_dims: int, clusters: int, bounds: tuple[int, int]) -> Receipt:
    """Commit rows [start, stop): around centres that all parts share, of Pareto weights."""
    start, stop = bounds
    done = artifacts.read_receipt(folder, f"{start:010d}")
    if done is not None:
        return done
    shared = np.random.default_rng(0)
    centres_CD = shared.standard_normal((clusters, n_dims), dtype=np.float32)
    weights = shared.pareto(1.5, clusters) + 0.05
    rng = np.random.default_rng([1, start])
    rows_ND = centres_CD[rng.choice(clusters, stop - start, p=weights / weights.sum())]
    rows_ND += 0.7 * rng.standard_normal(rows_ND.shape, dtype=np.float32)
    # Falling scales, as of real embeddings: fewer dimensions matter than there are.
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
    }
    files = {
        "samples.parquet": pa.table(table, schema=schemas.samples()),
        "embeddings.parquet": pa.table({"image_emb": vectors}),
    }
    return artifacts.commit_unit(folder, f"{start:010d}", files, {"embedded": count})


class Ledger:
    """What was measured, in a file that a run that goes on appends to."""

    def __init__(self, folder: Path) -> None:
        """Keep it there."""
        self._file, self._wall = folder / "measured.jsonl", folder / "wall.txt"

    def note(self, step: str, unit: str, seconds: float, mib: float) -> None:
        """CPU seconds and peak of one unit; the selection's are named by the number of their part."""
        step = "select" if step.isdecimal() else step
        with self._file.open("a") as stream:
            stream.write(json.dumps([step, unit, seconds, mib]) + "\n")

    def totals(self) -> tuple[dict[str, float], dict[str, float]]:
        """CPU seconds and peak MiB by step; a unit that was done twice counts once."""
        last = {(step, unit): (seconds, mib) for step, unit, seconds, mib in self._lines()}
        seconds: dict[str, float] = collections.defaultdict(float)
        mib: dict[str, float] = collections.defaultdict(float)
        for (step, _), (cpu, peak) in last.items():
            seconds[step] += cpu
            mib[step] = max(mib[step], peak)
        return dict(seconds), dict(mib)

    def add_wall(self, seconds: float) -> float:
        """Note the wall seconds of a run that came to the end; those of all of them."""
        with self._wall.open("a") as stream:
            stream.write(f"{seconds}\n")
        return sum(map(float, self._wall.read_text().split()))

    def _lines(self) -> Iterator[Any]:
        if self._file.exists():
            yield from map(json.loads, self._file.read_text().splitlines())


def rank(parts: Parts, folder: str, members: int, ledger: Ledger) -> list[Receipt]:
    """Rank on so many actors of a local Ray, one for each run of parts."""
    executor = OnRay(num_cpus=members)
    try:
        with Watch() as watch:
            params = RankParams("clip_score", 0.0, 1.0, 1.0)
            receipts = rank_pool(parts, folder, params, 0.0, executor, Resources(workers=members))
    finally:
        executor.close()
    for number, pid in enumerate(watch.mib):
        ledger.note("rank", str(number), watch.seconds[pid], watch.mib[pid])
    return receipts


def select(parts: Parts, ranks: Manifest, folder: str, executor: FreshProcesses) -> int:
    """Keep 30 %: how many that were."""
    params = SelectParams(0.3, None, None, None)
    ranked, cut_off = ranks.counters["ranked"], ranks.counters["cut_off"]
    thresholds = find_thresholds(parts, params, ranked, cut_off)
    units = plan_select(ranks.units, thresholds, None)
    worker = partial(SelectWorker, parts, folder)
    receipts = stages.run_units("select", folder, executor, units, worker, ONE)
    kept = artifacts.sum_counters(list(receipts.values()))["kept"]
    if kept != thresholds.budget or kept != math.floor(0.3 * ranked):
        raise AssertionError(f"{kept} kept, expected {thresholds.budget}")
    return kept


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rows: Sequence[int]
    dims: int
    recall: float
    rows_per_member: int
    workers: int
    folder: Path


def measure(n_rows: int, options: Options) -> tuple[dict[str, float], dict[str, float], float]:
    """CPU seconds and peak MiB by step, and the wall seconds of all."""
    place = options.folder / f"{n_rows}"
    place.mkdir(parents=True, exist_ok=True)
    folders = {name: str(place / name) for name in ("embed", "graph", "rank", "select")}
    bounds = [(start, min(start + PART_ROWS, n_rows)) for start in range(0, n_rows, PART_ROWS)]
    make = partial(make_part, folders["embed"], options.dims, max(16, n_rows // ROWS_PER_CLUSTER))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        parts = tuple(process.map(make, bounds))

    ledger, begin = Ledger(place), time.monotonic()
    executor = FreshProcesses(options.workers, None, ledger.note)
    params = GraphParams("image", 5, options.recall, None, None, 0, None, 0.0)
    layout = Layout(whole_below=0)
    job = graph_stage.plan_job(folders["embed"], parts, "scale", folders["graph"], params, layout)
    job, graph = graph_stage.build_graph(job, executor, ONE, ONE)
    facts = job.facts
    members = max(2, -(-n_rows // options.rows_per_member))
    ranked = rank(Parts(str(place), {"embed": parts, "graph": graph}), folders["rank"], members, ledger)
    ranks = Manifest("rank", "scale", {}, {}, tuple(ranked), artifacts.sum_counters(ranked))
    kept = select(Parts(str(place), {"embed": parts, "rank": ranked}), ranks, folders["select"], executor)
    ledger.note("driver", str(os.getpid()), time.process_time(), peak_mib())
    seconds, mib = ledger.totals()
    reached = f"{facts['nprobe']} of {facts['nlist']} lists, recall {facts['recall']:.3f}"
    print(
        f"<!-- {n_rows:,} rows: {reached}; {job.partitions} partitions of the graph, {members} of the ranking; "
        f"{kept:,} kept -->",
        flush=True,
    )
    return seconds, mib, ledger.add_wall(time.monotonic() - begin)


def show(options: Options) -> Iterator[str]:
    """Lines of the table."""
    found = [measure(n_rows, options) for n_rows in options.rows]
    names = list(found[-1][0])
    yield f"| rows | | {' | '.join(names)} | all |"
    yield "|---" * (len(names) + 3) + "|"
    for n_rows, (seconds, mib, wall) in zip(options.rows, found, strict=True):
        cells = " | ".join(f"{seconds[name]:.1f}" for name in names)
        yield f"| {n_rows:,} | CPU s | {cells} | {sum(seconds.values()):.1f} ({wall:.0f} s wall) |"
        yield f"| {n_rows:,} | MiB | {' | '.join(f'{mib[name]:.0f}' for name in names)} | {max(mib.values()):.0f} |"
    for (small, one), (large, other) in itertools.pairwise(zip(options.rows, found, strict=True)):
        exponent = math.log(sum(other[0].values()) / sum(one[0].values())) / math.log(large / small)
        growth = max(other[1].values()) / max(one[1].values())
        yield f"\n{small:,} to {large:,} rows: CPU time grows as N^{exponent:.2f}, largest worker {growth:.2f} times"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dims", type=int, default=32)
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--rows-per-member", type=int, default=1_250_000, help="of the ranking (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="keep everything there, to go on after a kill; else temporary"
    )
    values = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="d2prune-scale-") as temporary:
        options = Options(**values | {"folder": values["folder"] or Path(temporary)})
        for line in show(options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
