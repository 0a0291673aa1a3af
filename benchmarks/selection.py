"""Exact selection: speed, memory, rounds and messages on synthetic kNN graphs; prints markdown tables.

Reads nothing. Graphs are geometric (k nearest of clustered 3-d points, found along a space-filling
curve), so they have the triangles, hubs and mutual neighbours of real ones; squared distances are
scaled to a median nearest one of 0.3, as among web images. "near" keeps the curve's order, so
neighbours lie near in memory; "random" shuffles the pool. CPU seconds stand beside wall seconds
because they hardly move on a busy machine; every time is the best of --repeats.

    python -m benchmarks.selection --sizes 100000 1000000 12800000
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
def _morton(cells: _Int64s) -> _Int64s:
    """Place of each 3-d cell, int64 [N, 3] below 2**20, on the Z-order curve."""
    out = np.zeros(len(cells), np.int64)
    for i in range(len(cells)):
        for bit in range(20):
            for axis in range(3):
                out[i] |= ((cells[i, axis] >> bit) & 1) << (3 * bit + axis)
    return out


@kernel
def _nearest_along(points: NDArray[np.float32], k: int, window: int) -> _Int64s:
    """The k nearest of the `window` points before and after each, int64 [N, k]."""
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
def _symmetric(near: _Int64s, label: _Int64s) -> tuple[_Int64s, _Int64s]:
    """(indptr, indices) of the undirected graph in which node i is called label[i]; rows sorted, without repeats."""
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
def _distances(
    indptr: _Int64s, indices: _Int64s, points: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    out = np.empty(len(indices), np.float32)
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            d = points[i] - points[indices[e]]
            out[e] = np.float32((d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) * scale)
    return out


def make_graph(n: int, near_in_memory: bool, seed: int = 0) -> tuple[Graph, NDArray[np.float64], _Int64s]:
    """(graph, difficulty float64 [N], place of each node on the curve int64 [N])."""
    rng = np.random.default_rng(seed)
    centres = rng.random((max(1, n // 500), 3))
    points = centres[rng.integers(0, len(centres), n)] + rng.normal(
        scale=0.3 / len(centres) ** (1 / 3), size=(n, 3)
    )
    cells = ((points - points.min(0)) / np.ptp(points, axis=0) * (2**20 - 1)).astype(np.int64)
    points = points[np.argsort(_morton(cells), kind="stable")].astype(np.float32)
    near = _nearest_along(points, K, WINDOW)
    scale = 0.3 / float(np.median(((points - points[near[:, 0]]) ** 2).sum(1)))
    label = np.arange(n) if near_in_memory else rng.permutation(n)
    indptr, indices = _symmetric(near, label)
    placed = np.empty_like(points)
    placed[label] = points
    place = np.empty(n, np.int64)
    place[label] = np.arange(n)
    return Graph(indptr, indices, _distances(indptr, indices, placed, scale)), rng.random(n), place


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(CPU seconds, wall seconds), the best of each."""
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
    """One row for each size and order; all times from CSR and float scores to int64 t, without the check of the CSR."""
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
                f"{n:,}", order, f"{graph.n_edges / n:.1f}", f"{times[1][0]:.2f}", f"{n / times[1][0] / 1e6:.2f}",
                f"{times[1][1]:.2f}", f"{times[2][1]:.2f}", f"{times[1][1] / times[2][1]:.2f}",
                f"{times[2][0] / times[1][0]:.2f}", f"{check:.2f}", f"{peak / n:.1f}",
            )  # fmt: skip


def labels(place: _Int64s, n_parts: int, clustered: bool) -> _Int64s:
    """Partition of each node: a stretch of the curve, or by lot."""
    if clustered:
        return place * n_parts // len(place)
    return np.random.default_rng(1).integers(0, n_parts, len(place))


def rounds(n: int, parts: Sequence[int], repeats: int) -> Iterable[Sequence[object]]:
    """One row for each number of partitions and way of partitioning one pool in random order."""
    graph, difficulty, place = make_graph(n, near_in_memory=False)
    reference = compute_scores(graph, difficulty, GAMMAS, 1)[1]
    single, _ = measure(partial(compute_scores, graph, difficulty, GAMMAS, 1), repeats)
    s = to_fixed(difficulty)
    for n_parts in parts:
        for clustered in (True, False):
            owner = labels(place, n_parts, clustered)
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
                raise AssertionError(f"{n_parts} partitions give other bits")
            sent = sum(r.messages for r in history)
            yield (
                f"{n:,}", n_parts, "clustered" if clustered else "random", f"{cut:.1%}", len(history),
                f"{sent / n:.2f}", f"{12 * sent / 1e6:.1f}", f"{best[0]:.2f}", f"{best[0] / single:.2f}",
                f"{(best[0] + best[1]) / single:.2f}",
            )  # fmt: skip


def chain(n: int) -> tuple[Graph, NDArray[np.float64]]:
    """A path through the pool in random order, each node a little lower than the one before."""
    order = np.random.default_rng(2).permutation(n)
    near = np.empty((n, 1), np.int64)
    near[order[:-1], 0], near[order[-1], 0] = order[1:], order[-2]
    indptr, indices = _symmetric(near, np.arange(n))
    difficulty = np.empty(n)
    difficulty[order] = np.linspace(3, 1, n)
    # exp(-30) * 3 is far below the step from node to node, so the whole chain goes one by one.
    return Graph(indptr, indices, np.full(len(indices), 30.0, np.float32)), difficulty


def worst_case(sizes: Sequence[int]) -> Iterable[Sequence[object]]:
    """A long decreasing chain: whole, and cut by lot."""
    for n in sizes:
        graph, difficulty = chain(n)
        for threads in (1, 2):
            cpu, _ = measure(partial(compute_scores, graph, difficulty, GAMMAS, threads), 2)
            yield f"{n:,}", f"whole, {threads} threads", "-", f"{cpu:.2f}", f"{1e9 * cpu / n:,.0f}"
    n = 20_000
    graph, difficulty = chain(n)
    for n_parts in (4, 64):
        partitions = split(graph, labels(np.arange(n), n_parts, False), n_parts, to_fixed(difficulty), GAMMAS)
        start = time.process_time()
        history = run_rounds(partitions)
        cpu = time.process_time() - start
        yield f"{n:,}", f"{n_parts} partitions by lot", len(history), f"{cpu:.2f}", f"{1e9 * cpu / n:,.0f}"


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000, 12_800_000])
    parser.add_argument("--orders", nargs="*", default=["near", "random"])
    parser.add_argument("--partition-sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--partitions", type=int, nargs="*", default=[4, 64, 1024])
    parser.add_argument("--chains", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; k = {K}"
    )
    for threads in (1, 2):
        compute_scores(*make_graph(1_000, True)[:2], GAMMAS, threads)
    list(rounds(1_000, [2], 1))
    table(
        ["nodes", "order", "edges/node", "CPU s", "M nodes/s of CPU", "wall s", "wall s, 2 threads", "speed-up",
         "CPU, 2 threads/1", "check CPU s", "bytes/node"],
        speed(args.sizes, args.orders, args.repeats),
    )  # fmt: skip
    for n in args.partition_sizes:
        table(
            ["nodes", "partitions", "cut", "edges cut", "rounds", "messages/node", "MB sent", "CPU s",
             "CPU / whole graph", "with splitting"],
            rounds(n, args.partitions, args.repeats),
        )  # fmt: skip
    table(["chain", "run", "rounds", "CPU s", "ns/node"], worst_case(args.chains))


if __name__ == "__main__":
    main()
