"""Peak memory and CPU time of the sharded graph stage, step by step, at several sizes and numbers of partitions.

Reads nothing; writes artifacts to a temporary folder; prints a markdown table. Each step runs its units one after the
other in a fresh process, as one worker of a cluster would, so the peak is that of one worker. What a worker holds
before it does anything (libraries, compiled kernels) is in the first column of memory.

    python -m jobs.benchmarks.graph_stage --rows 100000 200000 --partitions 4 8
"""

import argparse
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import artifacts, columns
from pipeline.artifacts import Receipt
from pipeline.execution import Resources
from pipeline.graph import stage
from pipeline.graph.params import GraphParams, Layout

PART_ROWS = 10_000
STEPS = ("distinct", "copies", "quantiser", "truth", "layout", "assign", "search", "merge", "neighbors")


def usage() -> tuple[float, float]:
    """Return the most MiB this process has held, and the CPU seconds it has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def make_parts(folder: str, n_rows: int, n_dims: int) -> list[Receipt]:
    """Commit an embed artifact of clustered rows, as `jobs.benchmarks.graph.pool` makes them."""
    from jobs.benchmarks.graph import pool

    rows = pool(n_rows, n_dims).astype(np.float16)
    return [
        artifacts.commit_unit(
            folder,
            f"{start:08d}",
            {"embeddings.parquet": pa.table({"image_emb": columns.vector_column(rows[start : start + PART_ROWS])})},
        )
        for start in range(0, n_rows, PART_ROWS)
    ]


class FreshProcesses:
    """An executor: one fresh process per step; keeps the CPU seconds and the peak memory of each."""

    def __init__(self) -> None:
        """Nothing was measured yet."""
        self.seconds: dict[str, float] = {}
        self.mib: dict[str, float] = {}
        self.idle_mib = 0.0

    def map(
        self, make_worker: Callable[[], Callable[[Any], Any]], units: Sequence[Any], resources: Resources
    ) -> Iterator[Any]:
        """See `execution.Executor.map`."""
        if not units:
            return
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            worker = process.submit(make_worker).result()
            idle_mib, before = process.submit(usage).result()
            yield from process.map(worker, units)
            step = units[0].key.split("-")[0]
            self.mib[step], after = process.submit(usage).result()
            self.seconds[step] = after - before
            self.idle_mib = max(self.idle_mib, idle_mib)

    def group(self, *_: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError

    def cpus(self) -> int:
        """One worker at a time."""
        return 1

    cpus_per_node = cpus

    def close(self) -> None:
        """Nothing to stop."""


def main() -> None:
    """Print one row per size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000])
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 8], help="one for each of --rows")
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=Layout().batch_rows, help="queries a search holds at a time")
    options = parser.parse_args()
    params = GraphParams("image", 5, options.recall, None, None, 0, None, 0.0)
    print("| rows | partitions | what | idle | " + " | ".join(STEPS) + " | nprobe of nlist, recall |")
    print("|---" * (len(STEPS) + 5) + "|")
    for n_rows, partitions in zip(options.rows, options.partitions, strict=True):
        with tempfile.TemporaryDirectory(prefix="d2prune-graph-stage-") as folder:
            embed = str(Path(folder) / "embed")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                parts = process.submit(make_parts, embed, n_rows, options.dims).result()
            layout = Layout(whole_below=0, partitions=partitions, batch_rows=options.batch)
            job = stage.plan(embed, parts, "benchmark", str(Path(folder) / "graph"), params, layout)
            executor = FreshProcesses()
            job, _, facts = stage.build(job, executor, Resources(), Resources())
            searched = [job.receipt("search", partition).counters for partition in range(partitions)]
            written = sum(path.stat().st_size for path in Path(folder).rglob("*.bin")) / 2**20
        reached = f"{facts['nprobe']} of {facts['nlist']}, {facts['recall']:.3f}"
        for what, idle, values in (
            ("MiB", f"{executor.idle_mib:.0f}", executor.mib),
            ("CPU s", "", executor.seconds),
        ):
            cells = " | ".join(f"{values[step]:.{0 if what == 'MiB' else 1}f}" for step in STEPS)
            print(f"| {n_rows:,} | {partitions} | {what} | {idle} | {cells} | {reached} |", flush=True)
        largest = {name: max(counters[name] for counters in searched) for name in ("members", "queries")}
        visits = sum(counters["queries"] for counters in searched) / n_rows
        print(
            f"<!-- largest partition: {largest['members']:,} members, {largest['queries']:,} queries; a row visits "
            f"{visits:.2f} partitions; {written:,.0f} MiB exchanged; driver's peak {usage()[0]:.0f} MiB -->",
            flush=True,
        )


if __name__ == "__main__":
    main()
