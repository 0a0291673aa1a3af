"""CPU time of a graph that is built from the one before, against a full build with the same quantiser.

    python -m benchmarks.incremental --rows 200000 --added 0.01 0.1

Writes a synthetic pool and all artifacts to a temporary folder; prints a markdown table, after
checking that both ways gave the same bytes. One process; `--threads` of each step.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.graph import pool_blocks
from d2prune.execution import InProcess, Resources
from d2prune.graph import build
from d2prune.graph.params import GraphParams, Layout
from d2prune.graph.trained import copy_trained
from d2prune.parts.reader import Parts
from d2prune.store import artifacts, columns
from d2prune.store.artifacts import Manifest, Receipt
from d2prune.store.local_disk import TEMPORARY

PART_ROWS = 10_000
ONE = Resources()


class Timed:
    """An executor in this process that adds up the CPU seconds of each step."""

    def __init__(self) -> None:
        self.inner = InProcess()
        self.seconds: dict[str, float] = defaultdict(float)

    def map(
        self, make_worker: Callable[[], Callable[[Any], Any]], units: Sequence[Any], resources: Resources
    ) -> Iterator[Any]:
        """See `execution.Executor.map`."""
        started = time.process_time()
        for receipt in self.inner.map(make_worker, units, resources):
            self.seconds[units[0].key.split("-")[0]] += time.process_time() - started
            yield receipt
            started = time.process_time()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def write_parts(folder: str, rows: NDArray[np.float16], prefix: str) -> dict[str, Receipt]:
    """Commit embed units of some rows; return name -> receipt."""
    found = {}
    for number, start in enumerate(range(0, len(rows), PART_ROWS)):
        name = f"{prefix}{number:06d}"
        block = rows[start : start + PART_ROWS]
        tables = {
            "embeddings.parquet": pa.table({"image_emb": columns.vector_column(block)}),
            "samples.parquet": pa.table({"key": pa.array([""] * len(block))}),
        }
        found[name] = artifacts.commit_unit(folder, name, tables)
    return found


def build_night(
    work_dir: Path,
    parts: Mapping[str, Receipt],
    params: GraphParams,
    layout: Layout,
    given: str | None = None,
    previous: str | None = None,
) -> tuple[Manifest, dict[str, float]]:
    """Build a graph; return its manifest, and step -> CPU seconds."""
    units = tuple(parts[name] for name in sorted(parts))
    identity = artifacts.fingerprint("embed", [unit.key for unit in units])
    artifacts.commit_manifest(str(work_dir / "embed"), Manifest("embed", identity, {}, {}, units, {}))
    inputs = {"embed": identity} | ({} if given is None else {"quantiser": given})
    pool = Parts(str(work_dir), {"embed": units})
    job = build.plan_job(pool, inputs, str(work_dir / "graph"), params, layout)
    executor = Timed()
    started = time.process_time()
    job, receipts = build.build_graph(job, executor, ONE, ONE, previous)
    build.delete_intermediate_units(job)
    seconds = {"all": time.process_time() - started} | executor.seconds
    identity = artifacts.fingerprint("graph", inputs)
    manifest = Manifest("graph", identity, asdict(params), inputs, tuple(receipts), {}, job.facts)
    return artifacts.commit_manifest(str(work_dir / "graph"), manifest), seconds


def digest(work_dir: Path, manifest: Manifest) -> str:
    """Hash of all files that a graph consists of and keeps."""
    keys = [unit.key for unit in manifest.units] + list(build.other_unit_keys(asdict(manifest)))
    found = hashlib.sha256()
    for key in sorted(keys):
        for path in sorted((work_dir / "graph" / "units" / key).glob("*")):
            # A process that was killed leaves these; `d2prune run` sweeps them.
            if not path.name.startswith(TEMPORARY):
                found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def main() -> None:
    """Build a graph, then increments of several sizes both ways; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--added", type=float, nargs="+", default=[0.01, 0.1], help="share of rows added")
    parser.add_argument("--removed", type=int, default=0, help="parts removed as well")
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--first", action="store_true", help="compare with the first build, and check no bytes: half the time"
    )
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    params = GraphParams("image", 5, options.recall, None, None, 0, None, 0.0)
    layout = Layout(whole_below=0, threads=options.threads)
    n_added = round(options.rows * max(options.added))
    rows = np.concatenate(
        [block.astype(np.float16) for block in pool_blocks(options.rows + n_added, options.dims)]
    )
    print("| rows | added | build | CPU s | of the full build | by step |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="d2prune-incremental-", dir=options.folder) as folder:
        chain, other = Path(folder, "chain"), Path(folder, "full")
        parts = write_parts(str(chain / "embed"), rows[: options.rows], "p")
        other.mkdir()
        (other / "embed").symlink_to(chain / "embed")
        first, seconds = build_night(chain, parts, params, layout)
        _print(options.rows, "", "first", seconds, None)
        # The second night draws the sample that recall is measured on; later nights update it.
        trained = first.facts["quantiser"]
        copy_trained(str(chain / "graph"), str(other / "graph"), trained)
        latest = first
        for number, share in enumerate((0.0, *options.added)):
            added = rows[options.rows : options.rows + round(options.rows * share)]
            # Between other parts, so that positions move.
            pool = parts | write_parts(str(chain / "embed"), added, f"p000003-{number}-")
            if number:
                for name in sorted(parts)[5 : 5 + options.removed]:
                    del pool[name]
            latest_night, ours = build_night(chain, pool, params, layout, trained, latest.fingerprint)
            if number == 0:
                latest = latest_night
                _print(options.rows, "0, second night", "increment", ours, None)
                continue
            full = seconds
            if not options.first:
                full_night, full = build_night(other, pool, params, layout, trained)
                assert digest(chain, latest_night) == digest(other, full_night), "the bytes differ"
                _print(options.rows, f"{share:.0%}", "full", full, None)
            _print(options.rows, f"{share:.0%}", "increment", ours, full["all"])


def _print(n_rows: int, added: str, name: str, seconds: Mapping[str, float], full: float | None) -> None:
    steps = ", ".join(f"{step} {value:.1f}" for step, value in seconds.items() if step != "all")
    part = "" if full is None else f"{seconds['all'] / full:.1%}"
    print(f"| {n_rows:,} | {added} | {name} | {seconds['all']:.1f} | {part} | {steps} |", flush=True)


if __name__ == "__main__":
    main()
