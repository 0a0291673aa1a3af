"""Peak memory of one ranking worker, in bytes per row it owns, at each step.

    python -m benchmarks.rank_memory --rows 312500 1250000 --members 8

The pool is synthetic: position p has the neighbours p + d and p - d for four random distances d. So
nearly all edges lead to other workers (8 directed edges per row, as k = 5 gives), and their
messages can be computed without running them.

Reads nothing; writes the parts of one worker to a temporary folder; prints a markdown table. Per
size and step: the peak since the previous step in bytes per row, above the memory held before
anything was read, and CPU seconds. The last row is the growth from the first to the last size, in
which buffers of fixed size cancel out.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.graph_stage import peak_mib
from d2prune.d2.messages import Message
from d2prune.knn.csr import Graph
from d2prune.parts.files import NEIGHBORS, SAMPLES
from d2prune.parts.neighbors import to_table
from d2prune.parts.reader import Parts
from d2prune.rank.job import RankJob
from d2prune.rank.member import RankMember
from d2prune.rank.params import RankParams
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import FileRecord, Receipt

PART_ROWS = 31_250
N_STEPS = 4

Int64s = npt.NDArray[np.int64]


def neighbor_offsets(n_rows: int) -> Int64s:
    """Return the distances from a position to its neighbours in a pool of `n_rows`, int64 [8]."""
    forwards = np.random.default_rng(0).choice(n_rows // 2 - 1, N_STEPS, replace=False) + 1
    return np.concatenate([forwards, -forwards])


def make_part(folder: str, n_rows: int, part: int) -> tuple[Receipt, Receipt]:
    """Commit the samples and neighbours of one part, in a pool of `n_rows`."""
    rng = np.random.default_rng([1, part])
    position_N = np.arange(part * PART_ROWS, (part + 1) * PART_ROWS)
    offset_K = neighbor_offsets(n_rows)
    near_NK = (position_N[:, None] + offset_K) % n_rows
    order_NK = np.argsort(near_NK, axis=1)
    distance_K = np.random.default_rng(2).random(N_STEPS, np.float32)
    graph = Graph(
        np.arange(PART_ROWS + 1) * len(offset_K),
        np.take_along_axis(near_NK, order_NK, axis=1).ravel(),
        np.tile(distance_K, 2)[order_NK].ravel(),
    )
    uids = [f"{a:016x}{b:016x}" for a, b in rng.integers(0, 2**63, (PART_ROWS, 2)).tolist()]
    samples = pa.table(
        {
            "shard": pa.array(["0"] * PART_ROWS),
            "key": pa.array([f"{i:09d}" for i in range(PART_ROWS)]),
            "uid": pa.array(uids),
            "clip_score": pa.array(rng.random(PART_ROWS, np.float32)),
            **{
                name: pa.nulls(PART_ROWS, schemas.samples().field(name).type)
                for name in ("caption", "width", "height", "checksum", "image_sha256")
            },
            **{name: pa.array(np.zeros(PART_ROWS, np.int64)) for name in ("offset", "size")},
        },
        schema=schemas.samples(),
    )
    neighbors = to_table(graph, np.zeros(PART_ROWS, bool))
    return (
        artifacts.commit_unit(f"{folder}/embed", f"{part:08d}", {SAMPLES: samples}),
        artifacts.commit_unit(f"{folder}/graph", f"{part:08d}", {NEIGHBORS: neighbors}),
    )


def make_job(folder: str, rows: int, members: int) -> RankJob:
    """Return a ranking job whose first member owns `rows`; other parts are only receipts."""
    own = rows // PART_ROWS
    parts = [make_part(folder, rows * members, part) for part in range(own)]
    elsewhere = [
        Receipt(f"{part:08d}", (FileRecord(SAMPLES, PART_ROWS, 0, ""),)) for part in range(own, own * members)
    ]
    units = {
        "embed": (*(part[0] for part in parts), *elsewhere),
        "graph": (*(part[1] for part in parts), *elsewhere),
    }
    bounds = tuple(own * member for member in range(members + 1))
    params = RankParams("clip_score", 0.0, 1.0, 1.0)
    return RankJob(Parts(folder, units), f"{folder}/rank", params, 0.0, bounds)


def exchange_boundary(rows: int, members: int) -> dict[int, Message]:
    """Compute the boundary exchange that the other members send to the first, as they would."""
    known = np.zeros(rows * members, bool)
    for offset in neighbor_offsets(rows * members):
        known[(np.arange(rows) + offset) % (rows * members)] = True
    messages = {}
    for member in range(1, members):
        position_G = member * rows + np.flatnonzero(known[member * rows : (member + 1) * rows])
        messages[member] = Message(
            position_G, np.random.default_rng(member).integers(0, 2**40, len(position_G))
        )
    return messages


def reset_peak() -> None:
    """Reset the kernel's record of this process's peak memory."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(rows: int, members: int) -> dict[str, tuple[float, float]]:
    """Return step -> (peak MiB above the start, CPU seconds). Must run in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="d2prune-rank-memory-") as folder:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            job = process.submit(make_job, folder, rows, members).result()
        boundary = exchange_boundary(rows, members)
        others = tuple(range(1, members))
        with tempfile.TemporaryDirectory(prefix="d2prune-rank-memory-") as other:
            # Compiles the kernels and fills Arrow's memory pool before the measurement starts.
            take_part(
                make_job(other, PART_ROWS, members),
                exchange_boundary(PART_ROWS, members),
                others,
                lambda *_: None,
            )
        reset_peak()
        begin, found, last = peak_mib(), {}, time.process_time()

        def note(step: str) -> None:
            nonlocal last
            found[step] = peak_mib() - begin, time.process_time() - last
            reset_peak()
            last = time.process_time()

        take_part(job, boundary, others, note)
    return found


def take_part(
    job: RankJob, boundary: dict[int, Message], others: tuple[int, ...], note: Callable[[str], None]
) -> None:
    """Run all steps of the first member; `note` is called with the name of each step after it."""
    member = RankMember(job, 0)
    note("build")
    member.send_boundary({}, others)
    note("boundary exchange")
    member.start(boundary)
    note("start")
    asked = member.request_uids({})
    note("request uids")
    member.send_uids({other: position_W - position_W[0] for other, position_W in asked.items() if other})
    note("send uids")
    member.receive_uids(
        {owner: pa.array(["f" * 32] * len(asked[owner]), pa.large_string()) for owner in asked}
    )
    note("receive uids")
    member.commit()
    note("finish")


def make_table(sizes: list[int], members: int) -> Iterator[str]:
    """Measure every size and yield the lines of the table."""
    found = []
    for rows in sizes:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append(process.submit(measure, rows, members).result())
    names = list(found[0])
    yield f"| rows | measure | {' | '.join(names)} |"
    yield "|---" * (len(names) + 2) + "|"

    def line(rows: str, measure: str, cells: Iterable[str]) -> str:
        return f"| {rows} | {measure} | {' | '.join(cells)} |"

    def bytes_per_row(mib: float, rows: int) -> str:
        return f"{mib * 2**20 / rows:.0f}"

    for rows, figures in zip(sizes, found, strict=True):
        yield line(f"{rows:,}", "bytes per row", (bytes_per_row(figures[name][0], rows) for name in names))
        yield line(f"{rows:,}", "CPU s", (f"{figures[name][1]:.2f}" for name in names))
    if len(sizes) > 1:
        first, last, rows = found[0], found[-1], sizes[-1] - sizes[0]
        grown = (bytes_per_row(last[name][0] - first[name][0], rows) for name in names)
        yield line("growth", "bytes per row", grown)


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[312_500, 1_250_000],
        help=f"rows of the measured worker, multiples of {PART_ROWS:,}",
    )  # fmt: skip
    parser.add_argument("--members", type=int, default=8, help="workers of the ranking (%(default)s)")
    options = parser.parse_args()
    for line in make_table(options.rows, options.members):
        print(line, flush=True)


if __name__ == "__main__":
    main()
