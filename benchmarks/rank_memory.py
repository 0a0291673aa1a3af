"""What one member of the ranking holds for each row it owns, after each thing it does.

python -m benchmarks.rank_memory --rows 312500 1250000 --members 8

Reads nothing; writes the parts of one member to a temporary folder: a pool in which position p
neighbours p +- each of four numbers drawn by lot, so that nearly all edges lead to other members (8
directed edges a row, as k = 5 gives) and every letter of the others is known without them. Prints,
per size, the peak of the process since the step before, in bytes a row above what it held before it
read anything, and CPU seconds; then the growth between the first and the last size, which no buffer
of fixed size blurs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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


def steps(n_rows: int) -> Int64s:
    """How far the neighbours of a position lie, in a pool of so many rows: int64 [8]."""
    forwards = np.random.default_rng(0).choice(n_rows // 2 - 1, N_STEPS, replace=False) + 1
    return np.concatenate([forwards, -forwards])


def make_part(folder: str, n_rows: int, part: int) -> tuple[Receipt, Receipt]:
    """Commit the samples and neighbours of rows part * PART_ROWS onwards, in a pool of `n_rows`."""
    rng = np.random.default_rng([1, part])
    position_N = np.arange(part * PART_ROWS, (part + 1) * PART_ROWS)
    step_K = steps(n_rows)
    near_NK = (position_N[:, None] + step_K) % n_rows
    order_NK = np.argsort(near_NK, axis=1)
    distance_K = np.random.default_rng(2).random(N_STEPS, np.float32)
    graph = Graph(
        np.arange(PART_ROWS + 1) * len(step_K),
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
                for name in ("caption", "width", "height")
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
    """A ranking whose first member owns `rows`; of the others there are only receipts."""
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


def introductions(rows: int, members: int) -> dict[int, Message]:
    """What the others tell the first member of its neighbours, as `RankMember.send_boundary` does."""
    known = np.zeros(rows * members, bool)
    for step in steps(rows * members):
        known[(np.arange(rows) + step) % (rows * members)] = True
    letters = {}
    for member in range(1, members):
        position_G = member * rows + np.flatnonzero(known[member * rows : (member + 1) * rows])
        letters[member] = Message(
            position_G, np.random.default_rng(member).integers(0, 2**40, len(position_G))
        )
    return letters


def reset_peak() -> None:
    """Let the kernel forget the most that this process has held."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(rows: int, members: int) -> dict[str, tuple[float, float]]:
    """MiB above the beginning and CPU seconds, by step; in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="d2prune-rank-memory-") as folder:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            job = process.submit(make_job, folder, rows, members).result()
        met = introductions(rows, members)
        others = tuple(range(1, members))
        with tempfile.TemporaryDirectory(prefix="d2prune-rank-memory-") as other:
            # What is compiled, and what Arrow keeps for itself, is there before the first look.
            take_part(
                make_job(other, PART_ROWS, members),
                introductions(PART_ROWS, members),
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

        take_part(job, met, others, note)
    return found


def take_part(
    job: RankJob, met: dict[int, Message], others: tuple[int, ...], note: Callable[[str], None]
) -> None:
    """Do all that the first member does; `note` is told after each step."""
    member = RankMember(job, 0)
    note("build")
    member.send_boundary({}, others)
    note("send_boundary")
    member.start(met)
    note("start")
    asked = member.request_uids({})
    note("request_uids")
    member.send_uids({other: position_W - position_W[0] for other, position_W in asked.items() if other})
    note("send_uids")
    member.receive_uids(
        {owner: pa.array(["f" * 32] * len(asked[owner]), pa.large_string()) for owner in asked}
    )
    note("receive_uids")
    member.commit()
    note("commit")


def show(sizes: list[int], members: int) -> Iterator[str]:
    """Lines of the table."""
    found = []
    for rows in sizes:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            found.append(process.submit(measure, rows, members).result())
    names = list(found[0])
    yield f"| rows | | {' | '.join(names)} |"
    yield "|---" * (len(names) + 2) + "|"

    def line(what: str, rows: str, cell: Callable[[str], str]) -> str:
        return f"| {rows} | {what} | {' | '.join(map(cell, names))} |"

    def bytes_a_row(name: str, mib: Callable[[str], float], rows: int) -> str:
        return f"{mib(name) * 2**20 / rows:.0f}"

    def peak(of: dict[str, Any], name: str) -> float:
        return float(of[name][0])

    for rows, of in zip(sizes, found, strict=True):
        yield line("bytes a row", f"{rows:,}", partial(bytes_a_row, mib=partial(peak, of), rows=rows))
        yield line("CPU s", f"{rows:,}", lambda name, of=of: f"{of[name][1]:.2f}")
    if len(sizes) > 1:
        grown = partial(bytes_a_row, mib=lambda name: peak(found[-1], name) - peak(found[0], name))
        yield line("bytes a row", "growth", partial(grown, rows=sizes[-1] - sizes[0]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[312_500, 1_250_000], help=f"multiples of {PART_ROWS:,}"
    )
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args()
    for line in show(options.rows, options.members):
        print(line, flush=True)


if __name__ == "__main__":
    main()
