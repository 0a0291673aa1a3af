"""The kNN graph on a GPU: the same bytes as on the CPU, and the time of each step on large pools.

    python -m benchmarks.gpu --rows 1000000 10000000

First builds the graph of `--check-rows` rows on the CPU and on the GPU, whichever the pipeline
would choose: every byte must be equal, otherwise exits with 1. Then, for each of `--rows` and each
of `--searches`, generates a pool on the GPU and times the steps of `knn_graph` one by one. Recall
is measured against brute force. For the search, also prints its floating-point operations as a
share of the bf16 rate measured on the GPU.

Reads nothing and prints markdown.
"""

import argparse
import hashlib
import platform
import resource
import sys
import time

import numpy as np
import torch
from d2prune.knn.device_search import DeviceSearch
from numpy.typing import NDArray

from benchmarks.embed import matmul_rate
from d2prune.compiled.threads import available_cores
from d2prune.knn import backend
from d2prune.knn.in_memory import knn_graph_report, search_in_memory
from d2prune.knn.lists import search_lists
from d2prune.knn.merge import without_self
from d2prune.knn.probes import find_probes, tune_nprobe
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from d2prune.knn.recall import brute_force, measure, recall_samples
from d2prune.knn.symmetrise import symmetrise

Float32 = NDArray[np.float32]
K, BLOCK = 5, 1_000_000


def pool(n_rows: int, n_dims: int, device: str) -> Float32:
    """Make clustered unit rows on the device, as `benchmarks.graph.pool`; float32 [N, D]."""
    generator = torch.Generator(device).manual_seed(0)
    n_latent, n_clusters = min(96, n_dims), max(8, n_rows // 500)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    scale = torch.arange(1, n_latent + 1, device=device) ** -0.75
    scale /= scale.norm()
    basis = torch.linalg.qr(normal(n_dims, n_latent))[0].T
    centres = normal(n_clusters, n_latent)
    weights = torch.from_numpy(np.random.default_rng(0).pareto(1.5, n_clusters) + 0.2).to(device).cumsum(0)
    out = np.empty((n_rows, n_dims), np.float32)
    for start in range(0, n_rows, BLOCK):
        count = min(BLOCK, n_rows - start)
        drawn = torch.rand(count, generator=generator, device=device, dtype=torch.float64) * weights[-1]
        labels = torch.searchsorted(weights, drawn).clamp(max=n_clusters - 1)
        rows = ((centres[labels] + normal(count, n_latent)) * scale) @ basis
        rows += normal(count, n_dims) * (0.15 / n_dims**0.5)
        rows /= rows.norm(dim=1, keepdim=True)
        torch.from_numpy(out[start : start + count]).copy_(rows)
    if device == "cuda":
        torch.cuda.empty_cache()
    return out


def search_with(name: str) -> None:
    """Make every search from here on use the CPU or the GPU."""
    chosen = search_lists if name == "cpu" else DeviceSearch("cuda" if torch.cuda.is_available() else "cpu")
    backend.choose_search = lambda n_dims: chosen  # type: ignore[assignment]


def check(n_rows: int, n_dims: int) -> None:
    """Build a graph on CPU and GPU, print both hashes, and exit unless they are equal."""
    rows = np.random.default_rng(0).standard_normal((n_rows, n_dims), dtype=np.float32)
    rows[1:] += 1.5 * rows[np.random.default_rng(1).integers(0, max(1, n_rows // 100), n_rows - 1)]
    found = set()
    for name in ("cpu", "gpu"):
        search_with(name)
        knn_graph_report(rows[:20_000], K, nlist=100, nprobe=3)  # compiles the kernels
        start = time.perf_counter()
        graph = knn_graph_report(rows, K, target_recall=0.95).graph
        seconds = time.perf_counter() - start
        made = b"".join(part.tobytes() for part in (graph.indptr, graph.indices, graph.sq_distances))
        sha = hashlib.sha256(made).hexdigest()[:16]
        print(f"{n_rows:,} x {n_dims}, search on the {name.upper()}: {seconds:.1f} s, {sha}", flush=True)
        found.add(sha)
    if len(found) > 1:
        sys.exit("the GPU's graph differs from the CPU's")


class StepTable:
    """A markdown table of the seconds of each step, printed line by line."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        print("| step | s | |\n|---|---|---|")

    def add(self, name: str, note: str = "") -> float:
        """Print the seconds since the previous step ended, and return them."""
        seconds = time.perf_counter() - self._start
        print(f"| {name} | {seconds:.1f} | {note} |", flush=True)
        self._start = time.perf_counter()
        return seconds


def measure_steps(rows: Float32, search: str, target: float) -> None:
    """Run the steps of `knn_graph` on one pool and print their seconds."""
    search_with(search)
    (n_rows, n_dims), threads = rows.shape, available_cores()
    print(f"\n{n_rows:,} x {n_dims}, search on the {search.upper()}, {threads} threads\n")
    steps = StepTable()
    nlist = default_nlist(n_rows)
    sample_S, checked_S = recall_samples(n_rows, 1000, 0)
    quantiser = Quantiser(train(rows[training_sample(n_rows, nlist, 0)], nlist, 0, threads=threads))
    steps.add("train", f"{nlist} lists")

    def truth(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        blocks = ((rows[s : s + 8192], np.arange(s, min(s + 8192, n_rows))) for s in range(0, n_rows, 8192))
        return without_self(brute_force(rows[chosen], blocks, K + 1, threads), chosen)

    true = truth(sample_S)
    homes = quantiser.nearest(rows[true.positions.ravel()], 1, threads).positions.reshape(-1, K)
    nprobe = tune_nprobe(quantiser, rows[sample_S], homes, target, threads)
    steps.add("tune", f"nprobe {nprobe}")
    probes_RP = find_probes(quantiser, rows, nprobe, threads)
    steps.add("assign")
    top = search_in_memory(rows, np.arange(n_rows), quantiser.centroids, probes_RP, K + 1, threads)
    seconds = steps.add("search")
    found = without_self(top, np.arange(n_rows))
    symmetrise(found.positions, found.sq_distances)
    steps.add("symmetrise")
    recall = measure(found.sq_distances[checked_S], truth(checked_S).sq_distances)
    steps.add("measure", f"recall@{K} {recall.value:.4f} ({recall.low:.4f} to {recall.high:.4f})")
    sizes = np.bincount(probes_RP[:, 0], minlength=nlist).astype(np.float64)
    visits = np.bincount(probes_RP[probes_RP >= 0], minlength=nlist)
    flops = 2.0 * n_dims * float(sizes @ visits)
    if search == "gpu" and torch.cuda.is_available():
        rate = matmul_rate()
        share = f"{flops / seconds / rate:.1%} of {rate / 1e12:,.0f} TFLOP/s"
        print(f"\nmatrix products of the search: {flops / 1e12:,.0f} TFLOP, {share}")
        print(f"peak GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB; ", end="")
    print(f"peak host memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def main() -> None:
    """Compare the graphs, then time the steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000], help="sizes of the timed pools")
    parser.add_argument(
        "--check-rows", type=int, default=200_000, help="rows of the comparison; 0 skips it (%(default)s)"
    )
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--recall", type=float, default=0.95, help="target recall (%(default)s)")
    parser.add_argument(
        "--searches", nargs="*", choices=["cpu", "gpu"], default=["cpu", "gpu"], help="what to time"
    )
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    print(f"{name}, {platform.machine()}, {available_cores()} cores, torch {torch.__version__}\n")
    if options.check_rows:
        check(options.check_rows, options.dims)
    for n_rows in options.rows:
        rows = pool(n_rows, options.dims, device)
        for search in options.searches:
            measure_steps(rows, search, options.recall)


if __name__ == "__main__":
    main()
