"""Exact selection on synthetic kNN graphs: speed, memory, rounds and messages.

    python -m benchmarks.selection --sizes 100000 1000000 12800000

Reads nothing and prints three markdown tables: speed and memory by size of the pool, the cost of
partitioning, and the worst case (a long chain). Graphs are geometric (k nearest of clustered 3-d
points, found along a space-filling curve), so they have the triangles, hubs and mutual neighbours
of real ones. Squared distances are scaled so that the median nearest one is 0.3, as among web
images. The order "near" is that of the curve, so neighbours are close in memory; "random" shuffles
the pool. CPU seconds are printed as well as wall seconds because they hardly depend on other load.
Every time is the best of `--repeats`.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.d2.api import compute_scores
from d2prune.d2.fixed_point import to_fixed
from d2prune.d2.rounds import Round, run_rounds, split
from d2prune.knn.csr import Graph

K, WINDOW = 5, 16
GAMMAS = (1.0, 1.0)
_Int64s = NDArray[np.int64]


@kernel
def _morton_codes(cells: _Int64s) -> _Int64s:
    """Return the position on the Z-order curve of each 3-d cell, int64 [N, 3] below 2**20."""
    out = np.zeros(len(cells), np.int64)
    for i in range(len(cells)):
        for bit in range(20):
            for axis in range(3):
                out[i] |= ((cells[i, axis] >> bit) & 1) << (3 * bit + axis)
    return out


@kernel
def _find_nearest(points: NDArray[np.float32], k: int, window: int) -> _Int64s:
    """Return the k nearest among the `window` points before and after each point, int64 [N, k]."""
    n = len(points)
    near = np.empty((n, k), np.int64)
    for i in range(n):
        best = np.full(k, np.inf)
        for j in range(max(0, i - window), min(n, i + window + 1)):
            d = ((points[i] - points[j]) ** 2).sum()
            slot = k
            while slot > 0 and j != i and d < best[slot - 1]:
                slot -= 1
            for s in range(k - 1, slot, -1):
                best[s], near[i, s] = best[s - 1], near[i, s - 1]
            if slot < k:
                best[slot], near[i, slot] = d, j
    return near


@kernel
def _symmetrise(near: _Int64s, label: _Int64s) -> tuple[_Int64s, _Int64s]:
    """Return (indptr, indices) of the undirected graph, with node i renamed to label[i]."""
    n, k = near.shape
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        for s in range(k):
            starts[label[i] + 1] += 1
            starts[label[near[i, s]] + 1] += 1
    starts = np.cumsum(starts)
    filled = starts[:-1].copy()
    both = np.empty(starts[-1], np.int64)
    for i in range(n):
        a = label[i]
        for s in range(k):
            b = label[near[i, s]]
            both[filled[a]], both[filled[b]] = b, a
            filled[a] += 1
            filled[b] += 1
    indptr = np.zeros(n + 1, np.int64)
    end = 0
    for a in range(n):
        previous = -1
        for b in np.sort(both[starts[a] : starts[a + 1]]):
            if b != previous:
                both[end] = b
                end += 1
            previous = b
        indptr[a + 1] = end
    return indptr, both[:end].copy()


@kernel
def _edge_distances(
    indptr: _Int64s, indices: _Int64s, points: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """Return the scaled squared distance of every edge."""
    out = np.empty(len(indices), np.float32)
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            d = points[i] - points[indices[e]]
            out[e] = np.float32((d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) * scale)
    return out


def make_graph(n: int, near_in_memory: bool, seed: int = 0) -> tuple[Graph, NDArray[np.float64], _Int64s]:
    """Return a graph, and for each node a difficulty (float64) and its position on the curve."""
    rng = np.random.default_rng(seed)
    centres = rng.random((max(1, n // 500), 3))
    points = centres[rng.integers(0, len(centres), n)] + rng.normal(
        scale=0.3 / len(centres) ** (1 / 3), size=(n, 3)
    )
    cells = ((points - points.min(0)) / np.ptp(points, axis=0) * (2**20 - 1)).astype(np.int64)
    points = points[np.argsort(_morton_codes(cells), kind="stable")].astype(np.float32)
    near = _find_nearest(points, K, WINDOW)
    scale = 0.3 / float(np.median(((points - points[near[:, 0]]) ** 2).sum(1)))
    label = np.arange(n) if near_in_memory else rng.permutation(n)
    indptr, indices = _symmetrise(near, label)
    relabelled = np.empty_like(points)
    relabelled[label] = points
    curve_position = np.empty(n, np.int64)
    curve_position[label] = np.arange(n)
    graph = Graph(indptr, indices, _edge_distances(indptr, indices, relabelled, scale))
    return graph, rng.random(n), curve_position


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Return the best CPU seconds and the best wall seconds of `repeats` calls."""
    times = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(t[0] for t in times), min(t[1] for t in times)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a markdown table."""
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    print(flush=True)


def speed(sizes: Sequence[int], orders: Sequence[str], repeats: int) -> Iterable[Sequence[object]]:
    """Yield one row per size and order.

    Times are those from a CSR graph and float scores to int64 selection scores; the validation of
    the CSR graph is timed separately.
    """
    for n in sizes:
        for order in orders:
            graph, difficulty, _ = make_graph(n, order == "near")
            check, _ = measure(graph.validate, 1)
            times = {}
            for threads in (1, 2):
                times[threads] = measure(partial(compute_scores, graph, difficulty, GAMMAS, threads), repeats)
            tracemalloc.start()
            compute_scores(graph, difficulty, GAMMAS, 1)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            yield (
                f"{n:,}", order, f"{graph.n_edges / n:.1f}", f"{times[1][0]:.2f}",
                f"{n / times[1][0] / 1e6:.2f}", f"{times[1][1]:.2f}", f"{times[2][1]:.2f}",
                f"{times[1][1] / times[2][1]:.2f}", f"{times[2][0] / times[1][0]:.2f}",
                f"{check:.2f}", f"{peak / n:.1f}",
            )  # fmt: skip


def assign_partitions(curve_position: _Int64s, n_parts: int, clustered: bool) -> _Int64s:
    """Return the partition of each node: by curve position if clustered, otherwise random."""
    if clustered:
        return curve_position * n_parts // len(curve_position)
    return np.random.default_rng(1).integers(0, n_parts, len(curve_position))


def rounds(n: int, parts: Sequence[int], repeats: int) -> Iterable[Sequence[object]]:
    """Yield one row per number of partitions and assignment, for one pool in random order."""
    graph, difficulty, curve_position = make_graph(n, near_in_memory=False)
    reference = compute_scores(graph, difficulty, GAMMAS, 1)[1]
    single, _ = measure(partial(compute_scores, graph, difficulty, GAMMAS, 1), repeats)
    s = to_fixed(difficulty)
    for n_parts in parts:
        for clustered in (True, False):
            owner = assign_partitions(curve_position, n_parts, clustered)
            cut = float((np.repeat(owner, np.diff(graph.indptr)) != owner[graph.indices]).mean())
            best = (np.inf, np.inf)
            history: list[Round] = []
            for _ in range(repeats):
                start = time.process_time()
                partitions = split(graph, owner, n_parts, s, GAMMAS)
                middle = time.process_time()
                history = run_rounds(partitions)
                best = min(best, (time.process_time() - middle, middle - start))
            t = np.empty(n, np.int64)
            for part in partitions:
                t[part.own_positions] = part.scores()
            if not (t == reference).all():
                raise AssertionError(f"{n_parts} partitions: scores differ from those of the whole graph")
            sent = sum(r.messages for r in history)
            yield (
                f"{n:,}", n_parts, "clustered" if clustered else "random", f"{cut:.1%}", len(history),
                f"{sent / n:.2f}", f"{12 * sent / 1e6:.1f}", f"{best[0]:.2f}", f"{best[0] / single:.2f}",
                f"{(best[0] + best[1]) / single:.2f}",
            )  # fmt: skip


def chain(n: int) -> tuple[Graph, NDArray[np.float64]]:
    """Return a path through the nodes in random order, with decreasing difficulty along it."""
    order = np.random.default_rng(2).permutation(n)
    near = np.empty((n, 1), np.int64)
    near[order[:-1], 0], near[order[-1], 0] = order[1:], order[-2]
    indptr, indices = _symmetrise(near, np.arange(n))
    difficulty = np.empty(n)
    difficulty[order] = np.linspace(3, 1, n)
    # exp(-30) * 3 is far below the difference between nodes, so the order of the chain is kept.
    return Graph(indptr, indices, np.full(len(indices), 30.0, np.float32)), difficulty


def worst_case(sizes: Sequence[int]) -> Iterable[Sequence[object]]:
    """Yield one row per run on a long decreasing chain, complete and in random partitions."""
    for n in sizes:
        graph, difficulty = chain(n)
        for threads in (1, 2):
            cpu, _ = measure(partial(compute_scores, graph, difficulty, GAMMAS, threads), 2)
            run = f"whole, {threads} thread{'s' * (threads > 1)}"
            yield f"{n:,}", run, "-", f"{cpu:.2f}", f"{1e9 * cpu / n:,.0f}"
    n = 20_000
    graph, difficulty = chain(n)
    for n_parts in (4, 64):
        owner = assign_partitions(np.arange(n), n_parts, clustered=False)
        partitions = split(graph, owner, n_parts, to_fixed(difficulty), GAMMAS)
        start = time.process_time()
        history = run_rounds(partitions)
        cpu = time.process_time() - start
        yield f"{n:,}", f"{n_parts} random partitions", len(history), f"{cpu:.2f}", f"{1e9 * cpu / n:,.0f}"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[100_000, 1_000_000, 12_800_000],
        help="nodes of the graphs in the speed table",
    )  # fmt: skip
    parser.add_argument("--orders", nargs="*", default=["near", "random"], help="order of the nodes")
    parser.add_argument(
        "--partition-sizes", type=int, nargs="*", default=[100_000, 1_000_000],
        help="nodes of the graphs in the partition tables",
    )  # fmt: skip
    parser.add_argument(
        "--partitions", type=int, nargs="*", default=[4, 64, 1024], help="numbers of partitions"
    )
    parser.add_argument("--chains", type=int, nargs="*", default=[100_000, 1_000_000], help="chain lengths")
    parser.add_argument("--repeats", type=int, default=3, help="calls per measurement (%(default)s)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start; k = {K}")
    for threads in (1, 2):
        compute_scores(*make_graph(1_000, True)[:2], GAMMAS, threads)
    list(rounds(1_000, [2], 1))
    table(
        ["nodes", "order", "edges/node", "CPU s", "M nodes per CPU second", "wall s", "wall s, 2 threads",
         "speed-up", "CPU, 2 threads/1", "validation CPU s", "bytes/node"],
        speed(args.sizes, args.orders, args.repeats),
    )  # fmt: skip
    for n in args.partition_sizes:
        table(
            ["nodes", "partitions", "assignment", "edges cut", "rounds", "messages/node", "MB sent", "CPU s",
             "CPU / whole graph", "incl. splitting"],
            rounds(n, args.partitions, args.repeats),
        )  # fmt: skip
    table(["chain length", "run", "rounds", "CPU s", "ns/node"], worst_case(args.chains))


if __name__ == "__main__":
    main()
