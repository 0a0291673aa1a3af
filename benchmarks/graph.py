"""All-points kNN at equal recall: d2prune, faiss IndexIVFFlat, hnswlib and pynndescent.

    python -m benchmarks.graph --sizes 100000 300000 --methods ours ivfflat hnswlib pynndescent

Every method runs in its own process on the same synthetic pool, with the same number of threads.
Settings are tuned first, outside the timing, on 1,000 queries against brute force: the smallest
nprobe (or ef) at which the lower end of the 95 % confidence interval of recall reaches the target.
The timing covers building the index and searching every row. CPU seconds are printed as well as
wall seconds because they hardly depend on other load. The printed recall is measured on 1,000 other
rows.

Where faiss would take half an hour, `--searched Q` makes it search Q random rows and scales their
time to all rows. The time to build its index, which always holds all rows, is not scaled.

Reads nothing and prints markdown tables. hnswlib and pynndescent are not dependencies: install
them, or leave them out of `--methods`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.probes import tune_nprobe
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from d2prune.knn.recall import brute_force, measure
from d2prune.knn.top_k import TopK

Float32 = NDArray[np.float32]
K, TARGET, SAMPLE = 5, 0.95, 1_000
ROUNDING = np.float32(4e-6)


def pool_blocks(n_rows: int, n_dims: int = 512, seed: int = 0) -> Iterator[Float32]:
    """Yield clustered unit rows of low intrinsic dimension.

    The two-nearest-neighbours estimate of the dimension is about 25. N/500 overlapping clusters of
    very unequal weight in a latent space of falling scale, each cluster about as wide as the spread
    of the centres, and a little noise in all dimensions. As among web images, the neighbours of a
    row are therefore spread over several lists.

    Args:
        n_rows: N.
        n_dims: D.
        seed: int >= 0.

    Yields:
        float32 [50,000, D]; the last block may have fewer rows.
    """
    rng = np.random.default_rng(seed)
    n_latent, n_clusters = min(96, n_dims), max(8, n_rows // 500)
    scale = (1.0 + np.arange(n_latent)) ** -0.75
    scale /= np.linalg.norm(scale)
    basis = np.linalg.qr(rng.normal(size=(n_dims, n_latent)))[0].T.astype(np.float32)
    centres = rng.normal(size=(n_clusters, n_latent))
    weights = rng.pareto(1.5, n_clusters) + 0.2
    for start in range(0, n_rows, 50_000):
        n_block = min(50_000, n_rows - start)
        labels = rng.choice(n_clusters, n_block, p=weights / weights.sum())
        latent = ((centres[labels] + rng.normal(size=(n_block, n_latent))) * scale).astype(np.float32)
        block = latent @ basis
        block += rng.normal(size=block.shape).astype(np.float32) * np.float32(0.15 / math.sqrt(n_dims))
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        yield block


def pool(n_rows: int, n_dims: int = 512, seed: int = 0) -> Float32:
    """Return all of `pool_blocks`, float32 [N, D]."""
    out, start = np.empty((n_rows, n_dims), np.float32), 0
    for block in pool_blocks(n_rows, n_dims, seed):
        out[start : start + len(block)] = block
        start += len(block)
    return out


def exact_neighbours(rows: Float32, sample: NDArray[np.int64]) -> TopK:
    """Return the exact K + 1 nearest rows of each sampled row, itself first."""
    blocks = ((rows[s : s + 8192], np.arange(s, min(s + 8192, len(rows)))) for s in range(0, len(rows), 8192))
    return brute_force(rows[sample], blocks, K + 1, available_cores())


class Clock:
    """Wall and CPU seconds of all `with clock:` blocks together."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.wall -= time.perf_counter()
        self.cpu -= time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()

    def add(self, other: Clock, times: float) -> None:
        """Add the seconds of another clock, multiplied by `times`."""
        self.wall += times * other.wall
        self.cpu += times * other.cpu


class Tuning:
    """A sample of rows with their exact neighbours, to choose settings by."""

    def __init__(self, rows: Float32) -> None:
        self.sample = np.random.default_rng(1).permutation(len(rows))[:SAMPLE]
        truth = exact_neighbours(rows, self.sample)
        self.truth, self.neighbours = truth.sq_distances[:, 1:], truth.positions[:, 1:]

    def first_sufficient(self, values: Sequence[int], search: Callable[[int], Float32]) -> int:
        """Return the first value with a lower confidence bound of recall above the target."""
        # The float32 expansion of |a-b|^2 has errors of about 1e-6.
        for value in values:
            if measure(search(value) - ROUNDING, self.truth).low >= TARGET:
                return value
        return values[-1]


def ours(rows: Float32, threads: int, clock: Clock, _: int) -> tuple[Float32, str]:
    """Train, assign, search and symmetrise: `knn_graph` without the measurement of recall."""
    # Compiles the search by rows, by projections and by codes.
    for n_rows, lists in ((2000, 20), (20_000, 400), (20_000, 1_100)):
        knn_graph_report(rows[:n_rows], K, nlist=lists, nprobe=3, threads=threads)
    nlist, tuning = default_nlist(len(rows)), Tuning(rows)
    quantiser = Quantiser(train(rows[training_sample(len(rows), nlist, 0)], nlist, 0, threads=threads))
    sample = rows[tuning.sample]
    nprobe = tune_nprobe(quantiser, sample, tuning.neighbours, rows.__getitem__, TARGET, threads)
    with clock:
        report = knn_graph_report(rows, K, nlist=nlist, nprobe=nprobe, threads=threads, recall_queries=0)
    return report.sq_distances, f"nlist {nlist}, nprobe {nprobe}"


def ivfflat(rows: Float32, threads: int, clock: Clock, n_searched: int) -> tuple[Float32, str]:
    """Build an IndexIVFFlat with default training; search all rows, or `n_searched` random ones."""
    faiss.omp_set_num_threads(threads)
    nlist = round(4 * math.sqrt(len(rows)))  # the smallest value that faiss's guidelines advise
    index: Any = faiss.index_factory(rows.shape[1], f"IVF{nlist},Flat")
    with clock:
        index.train(rows)
        index.add(rows)
    tuning = Tuning(rows)

    def search(nprobe: int, queries: Float32) -> Float32:
        index.nprobe = nprobe
        distances: Float32 = index.search(queries, K + 1)[0][:, 1:]
        return distances

    nprobe = tuning.first_sufficient(range(1, 129), lambda value: search(value, rows[tuning.sample]))
    if n_searched >= len(rows):
        with clock:
            found = search(nprobe, rows)
        return found, f"nlist {nlist}, nprobe {nprobe}"
    # Includes the rows that recall is measured on.
    chosen = np.random.default_rng(1).permutation(len(rows))[SAMPLE : SAMPLE + n_searched]
    found, search_clock = np.full((len(rows), K), np.inf, np.float32), Clock()
    queries = rows[chosen]
    with search_clock:
        found[chosen] = search(nprobe, queries)
    clock.add(search_clock, len(rows) / n_searched)
    return found, f"nlist {nlist}, nprobe {nprobe}; search scaled from {n_searched:,} rows"


def hnsw(rows: Float32, threads: int, clock: Clock, _: int) -> tuple[Float32, str]:
    """Build an hnswlib index (M 16, ef_construction 100) and search every row in it."""
    index = importlib.import_module("hnswlib").Index(space="l2", dim=rows.shape[1])
    with clock:
        index.init_index(max_elements=len(rows), M=16, ef_construction=100, random_seed=0)
        index.add_items(rows, num_threads=threads)
    tuning = Tuning(rows)

    def search(ef: int, queries: Float32) -> Float32:
        index.set_ef(ef)
        distances: Float32 = index.knn_query(queries, k=K + 1, num_threads=threads)[1][:, 1:]
        return distances

    ef = tuning.first_sufficient(
        [6, 12, 16, 24, 32, 48, 64, 96, 128, 256], lambda value: search(value, rows[tuning.sample])
    )
    with clock:
        found = search(ef, rows)
    return found, f"ef {ef}"


def nndescent(rows: Float32, threads: int, clock: Clock, _: int) -> tuple[Float32, str]:
    """Build pynndescent's neighbour graph with the smallest n_neighbors that reaches the target."""
    build = importlib.import_module("pynndescent").NNDescent
    build(rows[:2000], n_neighbors=10, random_state=0, n_jobs=threads)
    tuning = Tuning(rows)
    found = np.empty(0, np.float32)

    def search(n_neighbors: int) -> Float32:
        nonlocal found
        clock.wall = clock.cpu = 0.0
        with clock:
            found = build(rows, n_neighbors=n_neighbors, random_state=0, n_jobs=threads).neighbor_graph[1]
        found = found[:, 1 : K + 1] ** 2
        sampled: Float32 = found[tuning.sample]
        return sampled

    n_neighbors = tuning.first_sufficient([10, 15, 20, 30], search)
    return found, f"n_neighbors {n_neighbors}"


METHODS = {"ours": ours, "ivfflat": ivfflat, "hnswlib": hnsw, "pynndescent": nndescent}


def run_one(method: str, n_rows: int, threads: int, n_searched: int) -> None:
    """Tune and time one method, measure its recall, and print one line of JSON."""
    rows, clock = pool(n_rows), Clock()
    found, settings = METHODS[method](rows, threads, clock, n_searched)
    check = np.random.default_rng(1).permutation(n_rows)[SAMPLE : 2 * SAMPLE]
    recall = measure(found[check] - ROUNDING, exact_neighbours(rows, check).sq_distances[:, 1:]).value
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"wall": clock.wall, "cpu": clock.cpu, "recall": recall, "settings": settings, "mib": peak}
        )
    )


def main() -> None:
    """Run every method on every size; print a table and the exponent of N in the CPU time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000], help="rows of each pool")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["ours", "ivfflat"])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument(
        "--searched", type=int, default=2**62, help="rows that faiss searches; their time is scaled to all"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one, options.sizes[0], options.threads, options.searched)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads, ", end="")
    print(f"faiss {faiss.__version__}, k={K}\n")
    print("| N x 512 | method | settings | wall s | CPU s | recall@5 | peak MiB ", end="")
    print("| wall / d2prune | CPU / d2prune |\n|---|---|---|---|---|---|---|---|---|")
    costs: dict[str, list[float]] = {}
    for n_rows in options.sizes:
        own_cpu = own_wall = math.nan
        for method in options.methods:
            command = [sys.executable, "-m", "benchmarks.graph", "--one", method, "--sizes", str(n_rows)]
            command += ["--threads", str(options.threads), "--searched", str(options.searched)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            if method == "ours":
                own_cpu, own_wall = row["cpu"], row["wall"]
            costs.setdefault(method, []).append(row["cpu"])
            print(
                f"| {n_rows:,} | {method} | {row['settings']} | {row['wall']:.1f} | {row['cpu']:.1f} "
                f"| {row['recall']:.3f} | {row['mib']:,.0f} | {row['wall'] / own_wall:.1f} "
                f"| {row['cpu'] / own_cpu:.1f} |",
                flush=True,
            )
    if len(options.sizes) > 1:
        for method, cpu in costs.items():
            slope = np.polyfit(np.log(options.sizes), np.log(cpu), 1)[0]
            print(f"\n{method}: CPU time grows as N^{slope:.2f}")


if __name__ == "__main__":
    main()
