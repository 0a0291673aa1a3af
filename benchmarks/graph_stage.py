"""Peak memory and CPU time of each step of the sharded graph stage.

    python -m benchmarks.graph_stage --rows 100000 200000 --partitions 4 8

Each step runs its units in fresh processes, as the workers of a cluster would; the peak is that of
the largest process. The column "idle" shows the memory of a worker before its first unit.
`--limit-gib` sets a memory limit for workers (RLIMIT_DATA), so that a step that needs more fails.

Reads nothing; writes a synthetic pool, block by block, and all artifacts to a temporary folder;
prints a markdown table.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from d2prune.execution import Resources
from d2prune.graph import build
from d2prune.graph.params import GraphParams, Layout
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, columns
from d2prune.store.artifacts import Receipt

PART_ROWS = 10_000
STEPS = (
    "distinct",
    "copies",
    "quantiser",
    "truth",
    "layout",
    "assign",
    "lists",
    "send",
    "search",
    "merge",
    "state",
    "neighbors",
)


def peak_mib() -> float:
    """Return the peak MiB of this process; `ru_maxrss` would include its parent's memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


_worker: Callable[[Any], Any]


def start_worker(make_worker: Callable[[], Callable[[Any], Any]], limit_bytes: int | None) -> None:
    """Set the memory limit of this process and build its worker."""
    global _worker
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    _worker = make_worker()


def run_unit(unit: Any) -> tuple[Any, float, float]:
    """Run a unit; returns its result, the peak MiB of this process, and its CPU seconds."""
    before = time.process_time()
    result = _worker(unit)
    return result, peak_mib(), time.process_time() - before


def make_parts(folder: str, n_rows: int, n_dims: int) -> list[Receipt]:
    """Commit an embed artifact with the rows of `benchmarks.graph.pool_blocks`, block by block."""
    from benchmarks.graph import pool_blocks

    receipts: list[Receipt] = []
    for block in pool_blocks(n_rows, n_dims):
        rows = block.astype(np.float16)
        for start in range(0, len(rows), PART_ROWS):
            table = pa.table({"image_emb": columns.vector_column(rows[start : start + PART_ROWS])})
            keys = pa.table({"key": [str(row) for row in range(len(table))]})
            files = {"embeddings.parquet": table, "samples.parquet": keys}
            receipts.append(artifacts.commit_unit(folder, f"{len(receipts):08d}", files))
    return receipts


class FreshProcesses:
    """An executor that runs each step in fresh processes and measures them.

    Attributes:
        seconds: step -> CPU seconds of its units.
        mib: step -> peak MiB of its largest process.
        idle_mib: peak MiB of a worker before its first unit.
        held_bytes: most bytes in `folder` at the end of a step, or of its units of one wave.
    """

    def __init__(
        self,
        workers: int,
        limit_bytes: int | None,
        note: Callable[[str, str, float, float], None] = lambda step, unit, seconds, mib: None,
        folder: str | None = None,
    ) -> None:
        """Create the executor.

        Args:
            workers: number of parallel processes.
            limit_bytes: memory limit of each.
            note: called with (step, unit, CPU seconds, peak MiB) after each unit.
            folder: of the artifacts, to measure `held_bytes`.
        """
        self.workers, self.limit_bytes, self._note = workers, limit_bytes, note
        self.seconds: dict[str, float] = {}
        self.mib: dict[str, float] = {}
        self.idle_mib = 0.0
        self.folder, self.held_bytes = folder, 0

    def map(
        self, make_worker: Callable[[], Callable[[Any], Any]], units: Sequence[Any], resources: Resources
    ) -> Iterator[Any]:
        """See `execution.Executor.map`."""
        if not units:
            return
        step = units[0].key.split("-")[0]
        # Steps that run wave by wave come here once per wave.
        self.seconds.setdefault(step, 0.0)
        self.mib.setdefault(step, 0.0)
        with ProcessPoolExecutor(
            min(self.workers, len(units)), get_context("spawn"), start_worker, (make_worker, self.limit_bytes)
        ) as processes:
            self.idle_mib = max(self.idle_mib, processes.submit(peak_mib).result())
            for result, mib, seconds in processes.map(run_unit, units):
                self.mib[step] = max(self.mib[step], mib)
                self.seconds[step] += seconds
                self._note(step, result.key, seconds, mib)
                yield result
        if self.folder is not None:
            held = sum(path.stat().st_size for path in Path(self.folder).rglob("*") if path.is_file())
            self.held_bytes = max(self.held_bytes, held)

    def group(self, *_: Any) -> Any:
        """Not supported: the graph stage does not use groups."""
        raise NotImplementedError

    def cpus(self) -> int:
        """Return the number of workers."""
        return self.workers

    cpus_per_node = cpus

    def cpus_per_gpu(self) -> float:
        """Return 0: there is no GPU."""
        return 0

    def close(self) -> None:
        """Do nothing: processes end with their step."""


def main() -> None:
    """Run the stage at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000], help="sizes of the pool")
    parser.add_argument(
        "--partitions", type=int, nargs="+", default=[4, 8], help="partitions, one number per size"
    )
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--recall", type=float, default=0.95, help="target recall (%(default)s)")
    parser.add_argument(
        "--batch", type=int, default=Layout().batch_rows, help="queries that a search holds in memory"
    )
    parser.add_argument(
        "--visitors", type=int, default=Layout().visitors, help="rows that one unit of the search serves"
    )
    parser.add_argument("--workers", type=int, default=1, help="parallel processes")
    parser.add_argument("--limit-gib", type=float, help="memory limit of a worker")
    options = parser.parse_args()
    limit_bytes = None if options.limit_gib is None else int(options.limit_gib * 2**30)
    totals = []
    params = GraphParams("image", 5, options.recall, None, None, 0, None, 0.0)
    print("| rows | partitions | measure | idle | " + " | ".join(STEPS) + " | nprobe of nlist, recall |")
    print("|---" * (len(STEPS) + 5) + "|")
    for n_rows, partitions in zip(options.rows, options.partitions, strict=True):
        with tempfile.TemporaryDirectory(prefix="d2prune-graph-stage-") as folder:
            embed = str(Path(folder) / "embed")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                parts = process.submit(make_parts, embed, n_rows, options.dims).result()
            layout = Layout(
                whole_below=0, partitions=partitions, batch_rows=options.batch, visitors=options.visitors
            )
            job = build.plan_job(
                Parts(folder, {"embed": parts}),
                {"embed": "benchmark"},
                str(Path(folder) / "graph"),
                params,
                layout,
            )
            executor = FreshProcesses(options.workers, limit_bytes, folder=job.folder)
            started = time.perf_counter()
            job, _ = build.build_graph(job, executor, Resources(), Resources())
            facts = job.facts
            wall = time.perf_counter() - started
            searched = [job.receipt("search", index).counters for index in range(partitions * job.slices)]
        reached = f"{facts['nprobe']} of {facts['nlist']}, {facts['recall']:.3f}"
        for measure, idle, values in (
            ("MiB", f"{executor.idle_mib:.0f}", executor.mib),
            ("CPU s", "", executor.seconds),
        ):
            cells = " | ".join(f"{values[step]:.{0 if measure == 'MiB' else 1}f}" for step in STEPS)
            print(f"| {n_rows:,} | {partitions} | {measure} | {idle} | {cells} | {reached} |", flush=True)
        largest = {name: max(counters[name] for counters in searched) for name in ("at_home", "queries")}
        visits = sum(counters["queries"] for counters in searched) / n_rows
        embedded = n_rows * options.dims * 2
        print(
            f"<!-- largest search unit: {largest['at_home']:,} at home, {largest['queries']:,} queries; "
            f"partitions visited per row: {visits:.2f}; {job.waves} waves; files of the graph: at most "
            f"{executor.held_bytes / 2**20:,.0f} MiB, {executor.held_bytes / embedded:.2f} times the "
            f"{embedded / 2**20:,.0f} MiB of the embeddings; "
            f"peak of the driver: {peak_mib():.0f} MiB; {wall:.0f} s with {options.workers} worker(s) -->",
            flush=True,
        )
        totals.append(sum(executor.seconds.values()))
    if len(totals) > 1:
        exponent = np.polyfit(np.log(options.rows), np.log(totals), 1)[0]
        print(f"\nCPU time of all steps grows as N^{exponent:.2f}")


if __name__ == "__main__":
    main()
