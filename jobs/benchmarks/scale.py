"""A synthetic pool given as embeddings, from the graph to the selection: seconds and peak memory of each step's worker.

python -m jobs.benchmarks.scale --rows 1000000 10000000

Reads nothing; writes an embed artifact of clustered rows (one part in memory at a time) and all that follows to a
temporary folder; prints a markdown table and the slope between consecutive sizes: the exponent of N in the CPU time,
and the growth of the largest worker. Each step of the graph, the ranking and the selection run in fresh processes, so a
peak is that of one worker. The ranking keeps its partitions in one process here: its peak is of all of them together.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks.graph_stage import FreshProcesses, usage
from pipeline import artifacts, columns, schemas
from pipeline.artifacts import Manifest, Receipt
from pipeline.execution import InProcess, Resources
from pipeline.graph import stage as graph_stage
from pipeline.graph.params import GraphParams, Layout
from pipeline.selection import ranking
from pipeline.selection import stage as select_stage

PART_ROWS = 50_000
ONE = Resources()


def make_part(folder: str, n_dims: int, clusters: int, start: int, stop: int) -> Receipt:
    """Commit rows [start, stop): around centres that all parts share, of Pareto weights."""
    shared = np.random.default_rng(0)
    centres_CD = shared.standard_normal((clusters, n_dims), dtype=np.float32)
    weights = shared.pareto(1.5, clusters) + 0.05
    rng = np.random.default_rng([1, start])
    rows_ND = centres_CD[rng.choice(clusters, stop - start, p=weights / weights.sum())]
    rows_ND += 0.7 * rng.standard_normal(rows_ND.shape, dtype=np.float32)
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    vectors = columns.vector_column(rows_ND.astype(np.float16))
    count = stop - start
    table = {
        "shard": pa.array([f"{start:010d}"] * count),
        "key": pa.array([f"{i:09d}" for i in range(count)]),
        "uid": pa.array([f"{start + i:032x}" for i in range(count)]),
        "clip_score": pa.array(rng.random(count, dtype=np.float32)),
        "caption": pa.array([""] * count),
        **{name: pa.array(np.zeros(count), kind) for name, kind in (("width", pa.int32()), ("height", pa.int32()))},
        **{name: pa.array(np.zeros(count), pa.int64()) for name in ("offset", "size")},
    }
    files = {
        "samples.parquet": pa.table(table, schema=schemas.samples()),
        "embeddings.parquet": pa.table({"image_emb": vectors}),
    }
    return artifacts.commit_unit(folder, f"{start:010d}", files, {"embedded": count})


def rank(pool: ranking.Pool, partitions: int) -> tuple[list[Receipt], float, float]:
    """Rank on so many partitions in this process: receipts, CPU seconds and peak MiB."""
    params = ranking.RankParams("clip_score", 0.0, 1.0, 1.0)
    _, before = usage()
    receipts = ranking.rank(pool, params, 0.0, InProcess(), Resources(workers=partitions))
    peak, after = usage()
    return receipts, after - before, peak


def select(pool: ranking.Pool, ranks: Manifest, folder: str) -> tuple[int, float, float]:
    """Keep 30 %: how many that were, CPU seconds and peak MiB."""
    _, before = usage()
    params = select_stage.SelectParams(0.3, None, None, None)
    line = select_stage.draw_line(pool.folder, ranks, pool.embed_folder, pool.parts, params)
    worker = select_stage.SelectWorker(pool.embed_folder, pool.folder, folder, pool.parts)
    kept = sum(worker(unit).counters["kept"] for unit in select_stage.plan_select(ranks.units, line, params))
    assert kept == line.budget == math.floor(0.3 * ranks.counters["ranked"]), (kept, line.budget)
    peak, after = usage()
    return kept, after - before, peak


def fresh(function: Any, *arguments: Any) -> Any:
    """The function's result, from a process that did nothing before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(n_rows: int, n_dims: int, partitions: int) -> tuple[dict[str, float], dict[str, float], float]:
    """CPU seconds and peak MiB by step, and the wall seconds of all."""
    with tempfile.TemporaryDirectory(prefix="d2prune-scale-") as place:
        folders = {name: str(Path(place) / name) for name in ("embed", "graph", "rank", "select")}
        starts = range(0, n_rows, PART_ROWS)
        make = partial(make_part, folders["embed"], n_dims, max(16, n_rows // 500))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            stops = [min(start + PART_ROWS, n_rows) for start in starts]
            parts = list(process.map(make, starts, stops))
        begin = time.monotonic()
        params = GraphParams("image", 5, 0.9, None, None, 0, None, 0.0)
        job = graph_stage.plan(folders["embed"], parts, "scale", folders["graph"], params, Layout(whole_below=0))
        steps = FreshProcesses()
        job, receipts, facts = graph_stage.build(job, steps, ONE, ONE)
        seconds, mib = dict(steps.seconds), dict(steps.mib)
        pool = ranking.Pool(folders["embed"], tuple(parts), folders["graph"], tuple(receipts), folders["rank"])
        ranked, seconds["rank"], mib["rank"] = fresh(rank, pool, partitions)
        counters = artifacts.sum_counters(ranked)
        ranks = Manifest("rank", "scale", {}, {}, tuple(ranked), counters)
        _, seconds["select"], mib["select"] = fresh(select, pool, ranks, folders["select"])
        wall = time.monotonic() - begin
        print(f"<!-- {n_rows:,} rows: {facts}, {job.partitions} partitions, driver's peak {usage()[0]:.0f} MiB -->")
    return seconds, mib, wall


def show(sizes: Sequence[int], n_dims: int, partitions: int) -> Iterator[str]:
    """Lines of the table."""
    found = [measure(n_rows, n_dims, partitions) for n_rows in sizes]
    names = list(found[0][0])
    yield f"| rows | | {' | '.join(names)} | all |"
    yield "|---" * (len(names) + 3) + "|"
    for n_rows, (seconds, mib, wall) in zip(sizes, found, strict=True):
        cells = " | ".join(f"{seconds[name]:.1f}" for name in names)
        yield f"| {n_rows:,} | CPU s | {cells} | {sum(seconds.values()):.1f} ({wall:.0f} s wall) |"
        yield f"| {n_rows:,} | MiB | {' | '.join(f'{mib[name]:.0f}' for name in names)} | {max(mib.values()):.0f} |"
    for (small, one), (large, other) in zip(
        zip(sizes, found, strict=True), zip(sizes[1:], found[1:], strict=True), strict=False
    ):
        exponent = math.log(sum(other[0].values()) / sum(one[0].values())) / math.log(large / small)
        growth = max(other[1].values()) / max(one[1].values())
        yield f"\n{small:,} to {large:,} rows: CPU time grows as N^{exponent:.2f}, largest worker {growth:.2f} times"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--dims", type=int, default=16)
    parser.add_argument("--rank-partitions", type=int, default=16)
    options = parser.parse_args()
    for line in show(options.rows, options.dims, options.rank_partitions):
        print(line, flush=True)


if __name__ == "__main__":
    main()
