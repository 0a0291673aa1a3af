"""The index of a pool: time to write it, recall of faiss on it, time and memory of a search.

    python -m benchmarks.search --rows 1000000 --folder /scratch/search

Makes a work_dir of the synthetic pool of `benchmarks.graph`, with a graph whose rows visit one list
(lists and centroids are those of any nprobe). Then, alternately, copies the embeddings in three ways
and writes the index: `cp` with fsync of each file, and a copy through the store, which verifies what it
reads and records what it writes. CPU seconds hardly depend on other load. Recall is measured on 1,000
rows: of faiss at nprobe 32, and of our own search in the same lists. The search runs in a fresh process.

Prints a markdown table. `--folder` keeps the pool for another run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune import store
from d2prune.compiled.threads import available_cores
from d2prune.execution import InProcess, Resources
from d2prune.graph.build import build_graph, delete_intermediate_units, plan_job
from d2prune.graph.params import GraphParams, Layout
from d2prune.index.build import build_index
from d2prune.parts.reader import Parts
from d2prune.runs.finished import FinishedRun, open_run
from d2prune.store import artifacts, columns, schemas
from d2prune.store.artifacts import Manifest, Receipt

PART_ROWS, QUERIES, NPROBE, TOP = 10_000, 1_000, 32, 10


def make_run(folder: Path, n_rows: int, n_dims: int) -> FinishedRun:
    """Return the run in a folder; make it first if the folder is empty."""
    if (folder / "select").exists():
        return open_run(str(folder))
    from benchmarks.graph import pool_blocks

    parts: list[Receipt] = []
    decided: list[Receipt] = []
    for block in pool_blocks(n_rows, n_dims):
        rows = block.astype(np.float16)
        for start in range(0, len(rows), PART_ROWS):
            part = rows[start : start + PART_ROWS]
            first = sum(receipt.rows("samples.parquet") for receipt in parts)
            names = make_names(first, len(part))
            files = {
                "embeddings.parquet": pa.table({"image_emb": columns.vector_column(part)}),
                "samples.parquet": pa.table(
                    {name: names.get(name, pa.nulls(len(part))) for name in schemas.samples().names},
                    schema=schemas.samples(),
                ),
            }
            parts.append(artifacts.commit_unit(str(folder / "embed"), f"{len(parts):08d}", files))
            table = {name: names.get(name, pa.nulls(len(part))) for name in schemas.DECISIONS.names}
            decisions = {"decisions.parquet": pa.table(table, schema=schemas.DECISIONS)}
            decided.append(artifacts.commit_unit(str(folder / "select"), f"{len(decided):08d}", decisions))
    embed = commit(folder, "embed", {}, {}, parts)
    params = GraphParams("image", 1, None, None, 1, 0, None, 0.0)
    layout = Layout(whole_below=0, threads=available_cores())
    pool = Parts(str(folder), {"embed": parts})
    job = plan_job(pool, {"embed": embed.fingerprint}, str(folder / "graph"), params, layout)
    cores = Resources(1, available_cores())
    job, receipts = build_graph(job, InProcess(), cores, cores)
    delete_intermediate_units(job)
    graph = commit(folder, "graph", asdict(params), {"embed": embed.fingerprint}, receipts, job.facts)
    rank = commit(folder, "rank", {}, {"graph": graph.fingerprint}, [])
    commit(folder, "select", {}, {"rank": rank.fingerprint}, decided)
    return open_run(str(folder))


def make_names(first: int, count: int) -> dict[str, Any]:
    """Return columns of samples and decisions."""
    rows = range(first, first + count)
    return {
        "uid": [f"{row:032x}" for row in rows],
        "shard": [f"{first // PART_ROWS:08d}.tar"] * count,
        "key": [f"{row:09d}" for row in rows],
        "caption": [f"caption of sample {row}" for row in rows],
        "difficulty": np.zeros(count, np.float32),
        "forward_score": np.zeros(count),
        "selection_score": np.zeros(count),
        "selection_fixed": np.zeros(count, np.int64),
        "kept": [row % 3 == 0 for row in rows],
        "reason": ["kept" if row % 3 == 0 else "below-budget" for row in rows],
        "suppressor": np.full(count, -1),
    }


def commit(
    folder: Path, stage: str, params: Any, inputs: Any, units: list[Receipt], facts: Any = None
) -> Manifest:
    """Commit a manifest."""
    identity = artifacts.fingerprint(stage, params, inputs)
    counters = artifacts.sum_counters(units)
    manifest = Manifest(stage, identity, params, inputs, tuple(units), counters, facts or {})
    return artifacts.commit_manifest(str(folder / stage), manifest)


def copy_files(run: FinishedRun, target: Path) -> None:
    """Copy the embeddings file by file, each synced."""
    for unit in run.embed.units:
        place = target / unit.key
        place.mkdir(parents=True)
        source = Path(run.work_dir, "embed", "units", unit.key, "embeddings.parquet")
        shutil.copyfile(source, place / source.name)
        with open(place / source.name, "rb") as stream:
            os.fsync(stream.fileno())


def copy_verified(run: FinishedRun, target: Path) -> None:
    """Copy the embeddings as the project reads and writes: checked against receipts, with new receipts."""
    for unit in run.embed.units:
        data = artifacts.read_file(store.join(run.work_dir, "embed"), unit, "embeddings.parquet")
        artifacts.commit_unit(str(target), unit.key, {"embeddings.parquet": data})


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - start, sum(
        getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")
    )


def measure_writing(run: FinishedRun, scratch: Path, rounds: int) -> None:
    """Print the time of copies and of the index, pairwise."""
    ways: dict[str, Callable[[], object]] = {
        "cp with fsync": lambda: copy_files(run, scratch),
        "verified copy": lambda: copy_verified(run, scratch),
        "index": lambda: build_index(run),
    }
    build_index(run)  # compiles
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(Path(run.work_dir, "index"), ignore_errors=True)
            os.sync()
            found[name].append(measure(work))
    shutil.rmtree(scratch, ignore_errors=True)
    print("| | wall s (median) | CPU s | index / this, wall (median of pairs) |\n|---|---|---|---|")
    for name, seconds in found.items():
        ratios = [index[0] / own[0] for index, own in zip(found["index"], seconds, strict=True)]
        wall, cpu = (statistics.median(values) for values in zip(*seconds, strict=True))
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {statistics.median(ratios):.2f} |")


def measure_recall(run: FinishedRun, folder: str) -> None:
    """Print recall@10 of faiss and of our own search in the same lists."""
    import faiss

    from d2prune.index.job import open_job
    from d2prune.knn.features import features
    from d2prune.knn.quantiser import Quantiser
    from d2prune.knn.recall import brute_force

    positions = np.sort(np.random.default_rng(1).choice(len(run), QUERIES, replace=False))
    queries = features("image", *run.parts.take_vectors(positions, run.embeddings_file))
    job = open_job(run, available_cores())
    spans = run.parts.spans
    blocks = ((job.rows(part), np.arange(*spans.bounds(part))) for part in range(job.n_parts))
    truth = brute_force(queries, blocks, TOP, available_cores()).positions
    home_N = np.concatenate([job.lists(part) for part in range(job.n_parts)])
    probes = Quantiser(job.find_centroids()).nearest(queries, NPROBE, available_cores()).positions
    ours = (home_N[truth][:, :, None] == probes[:, None, :]).any(-1).mean()
    index = faiss.read_index(folder + "/pool.faiss")
    index.nprobe = NPROBE
    found = index.search(queries, TOP)[1]
    theirs = (truth[:, :, None] == found[:, None, :]).any(-1).mean()
    print(f"\nrecall@{TOP} at nprobe {NPROBE} of {index.nlist} lists: faiss {theirs:.4f}, ours {ours:.4f}")


def search_here(work_dir: str, count: int) -> None:
    """Search in this process; print times in ms and memory in MB as JSON."""
    from d2prune.search.searcher import Searcher

    start = time.perf_counter()
    searcher = Searcher(open_run(work_dir))
    opened = time.perf_counter() - start
    rng = np.random.default_rng(2)
    times: dict[str, list[float]] = {"search": [], "with descriptions": []}
    for position in rng.choice(len(searcher.run), count, replace=False).tolist():
        image, _ = searcher.run.parts.take_vectors(np.array([position]), searcher.run.embeddings_file)
        start = time.perf_counter()
        hits = searcher.near(image, TOP)
        times["search"].append(time.perf_counter() - start)
        searcher.describe(hits)
        times["with descriptions"].append(time.perf_counter() - start)
    measure_page(searcher.run, rng.choice(len(searcher.run), count, replace=False), times)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory = {name: int(status[name].split()[0]) // 1000 for name in ("VmHWM", "RssAnon", "RssFile")}
    milliseconds = {
        name: [round(1000 * value, 1) for value in (values[0], *np.percentile(values[1:], [50, 95]))]
        for name, values in times.items()
    }
    print(json.dumps({"open_ms": round(1000 * opened), **milliseconds, **memory}))


def measure_page(run: FinishedRun, positions: NDArray[np.int64], times: dict[str, list[float]]) -> None:
    """Time pages of the explorer with the samples most like one."""
    from d2prune.explore.api import Explorer

    explorer = Explorer(run)
    explorer.index.load()
    times["page of the explorer"] = []
    for position in positions.tolist():
        start = time.perf_counter()
        explorer.search({"like": str(position)})
        times["page of the explorer"].append(time.perf_counter() - start)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--search", type=int, default=0, help="only search, this many times")
    arguments = parser.parse_args()
    work = arguments.folder / f"work-{arguments.rows}"
    if arguments.search:
        search_here(str(work), arguments.search)
        return
    run = make_run(work, arguments.rows, arguments.dims)
    measure_writing(run, arguments.folder / "copy", arguments.rounds)
    measure_recall(run, build_index(run))
    command = [sys.executable, "-m", "benchmarks.search", "--folder", str(arguments.folder)]
    command += ["--rows", str(arguments.rows), "--search", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"\nsearch (first, median, 95th percentile, ms): {done.stdout}")


if __name__ == "__main__":
    main()
