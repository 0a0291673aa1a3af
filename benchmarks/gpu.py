"""The kNN graph and embedding on a GPU, in at most ten minutes: for the day a GPU is available.

    python -m benchmarks.gpu --folder /scratch/gpu

In this order, each part only if enough of `--minutes` is left:

1. bits: the graph of `--check-rows` rows, by the CPU kernel and by faiss: every byte must be equal,
   otherwise exits with 1;
2. graph: for each of `--rows`, the steps of `knn_graph` with the search on the GPU; against this machine's
   cores, and against faiss's own IVF on the GPU in the same lists, both on a share of the work, scaled;
3. exact: every row of `--exact` rows against every other, on the GPU; on the cores a share, scaled;
4. embed: `benchmarks.embed` with each of `--models`, from tars.

Without a GPU the same code runs with `faiss.knn`, at the small sizes of the test. Reads nothing but the
models' configurations, and prints markdown.
"""

import argparse
import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores
from d2prune.knn import backend
from d2prune.knn.block_search import Offers
from d2prune.knn.faiss_search import FaissSearch, nearest_on_cpu, open_gpu
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.lists import Lists, search_lists
from d2prune.knn.merge import without_self
from d2prune.knn.probes import find_probes, tune_nprobe
from d2prune.knn.quantiser import Quantiser, default_nlist, train, training_sample
from d2prune.knn.recall import brute_force, measure, recall_samples
from d2prune.knn.top_k import TopK

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
K, BLOCK = 5, 1_000_000
# Lists that the cores search, and rows that the exact search on the cores and faiss's IVF take: one in so
# many, at most.
SHARE = 50
HAS_GPU = torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources")


class Clock:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.perf_counter() + 60 * minutes

    def allows(self, name: str, seconds: float) -> bool:
        """Return whether a part of about `seconds` can start; otherwise print that it is left out."""
        left = self._end - time.perf_counter()
        if left < seconds:
            print(f"\n{name}: left out, about {seconds:.0f} s needed and {left:.0f} s left", flush=True)
        return left >= seconds


def pool(n_rows: int, n_dims: int) -> Float32:
    """Make clustered unit rows, on the GPU if there is one, as `benchmarks.graph.pool`; float32 [N, D]."""
    device = "cuda" if HAS_GPU else "cpu"
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
    if HAS_GPU:
        torch.cuda.empty_cache()
    return out


def search_with(name: str) -> None:
    """Make every search from here on use the CPU kernel or faiss."""
    chosen: Any = search_lists
    if name == "faiss":
        nearest = open_gpu() if HAS_GPU else None
        chosen = FaissSearch(nearest or nearest_on_cpu)
    backend.choose_search = lambda n_dims: chosen  # type: ignore[assignment]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and the result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def check_bits(n_rows: int, n_dims: int) -> None:
    """Build graphs with lists and without by the CPU kernel and by faiss; exit unless all bytes are equal."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, n_dims), dtype=np.float32)
    rows[1:] += 1.5 * rows[rng.integers(0, max(1, n_rows // 100), n_rows - 1)]
    rows[rng.integers(0, n_rows, n_rows // 20)] = rows[0]
    exact = rows[: max(1, n_rows // 10)]
    print("| graph | search | s | SHA-256 |\n|---|---|---|---|")
    for name, part, nprobe in (("in lists", rows, 8), ("exact", exact, None)):
        found = set()
        for search in ("CPU", "faiss"):
            search_with(search)
            knn_graph_report(rows[:2_000], K, nlist=20, nprobe=3)  # compiles the kernels
            seconds, report = timed(lambda part=part, nprobe=nprobe: knn_graph_report(part, K, nprobe=nprobe))
            graph = report.graph
            made = b"".join(array.tobytes() for array in (graph.indptr, graph.indices, graph.sq_distances))
            sha = hashlib.sha256(made).hexdigest()[:16]
            print(f"| {len(part):,} x {n_dims}, {name} | {search} | {seconds:.1f} | {sha} |", flush=True)
            found.add(sha)
        if len(found) > 1:
            sys.exit("the graph by faiss differs from the CPU's")


def search_share(lists: Lists, probes_RP: NDArray[np.int32], every: int, name: str) -> float:
    """Search every so many lists for all their visitors; return the seconds, scaled to all pairs."""
    search_with(name)
    sizes = np.diff(lists.indptr).astype(np.float64)
    pairs_L = sizes * np.bincount(probes_RP.ravel(), minlength=len(sizes))
    chosen = np.zeros(len(sizes), bool)
    chosen[::every] = True
    probes = np.where(chosen[probes_RP], probes_RP, -1).astype(np.int32)
    top = TopK.empty(len(lists.rows), K + 1)
    offers = Offers(lists.positions, top)
    seconds, _ = timed(
        lambda: backend.search_probes(lists, lists.rows, probes, top, available_cores(), offers=offers)
    )
    return float(seconds * pairs_L.sum() / max(1.0, pairs_L[chosen].sum()))


def search_ivf(lists: Lists, nprobe: int) -> float:
    """Search with faiss's own IVF in the same lists, on the GPU if there is one; seconds for all rows."""
    n_dims, nlist = lists.centroids.shape[1], len(lists.centroids)
    quantiser = faiss.IndexFlatL2(n_dims)
    quantiser.add(lists.centroids)
    index: Any = faiss.IndexIVFFlat(quantiser, n_dims, nlist)
    index.is_trained = True
    if HAS_GPU:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    adding, _ = timed(lambda: index.add(lists.rows))
    index.nprobe = nprobe
    queries = lists.rows[:: SHARE if len(lists.rows) > 100_000 else 1]
    searching, _ = timed(lambda: index.search(queries, K + 1))
    return adding + searching * len(lists.rows) / len(queries)


def measure_graph(rows: Float32, target: float) -> None:
    """Print the seconds of each step with the search by faiss, and of the search by others."""
    (n_rows, n_dims), threads = rows.shape, available_cores()
    search_with("faiss")
    nlist = default_nlist(n_rows)
    seconds: dict[str, float] = {}
    training = rows[training_sample(n_rows, nlist, 0)]
    seconds["train"], centroids = timed(lambda: train(training, nlist, 0, threads=threads))
    quantiser = Quantiser(centroids)
    sample_S, checked_S = recall_samples(n_rows, 1000, 0)
    step = backend.block_rows(n_dims)

    def truth(chosen: Int64) -> TopK:
        blocks = ((rows[s : s + step], np.arange(s, min(s + step, n_rows))) for s in range(0, n_rows, step))
        return without_self(brute_force(rows[chosen], blocks, K + 1, threads), chosen)

    true = truth(sample_S)
    nprobe = tune_nprobe(quantiser, rows[sample_S], true.positions, rows.__getitem__, target, threads)
    seconds["assign"], probes_RP = timed(lambda: find_probes(quantiser, rows, nprobe, threads))
    order = np.argsort(probes_RP[:, 0], kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(probes_RP[:, 0], minlength=nlist))])
    lists, probes_RP = Lists(rows[order], order, indptr, centroids), probes_RP[order]
    top = TopK.empty(n_rows, K + 1)
    offers = Offers(lists.positions, top)

    def search() -> None:
        backend.search_probes(lists, lists.rows, probes_RP[:, :1], top, threads)
        backend.search_probes(lists, lists.rows, probes_RP[:, 1:], top, threads, offers=offers)

    seconds["search"], _ = timed(search)
    found = np.empty((n_rows, K + 1), np.float32)
    found[order] = top.sq_distances
    recall = measure(found[checked_S][:, 1:], truth(checked_S).sq_distances)
    steps = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    print(f"\n{n_rows:,} x {n_dims}: {nprobe} of {nlist} lists, recall@{K} {recall.value:.4f}; {steps} s\n")
    every = max(1, min(SHARE, n_rows // 100_000))
    others = {
        f"{threads} cores, one list in {every}, scaled": search_share(lists, probes_RP, every, "CPU"),
        f"faiss IVF on the {'GPU' if HAS_GPU else 'CPU'}, scaled": search_ivf(lists, nprobe),
    }
    print("| search | s | / ours |\n|---|---|---|")
    print(f"| ours on the {'GPU' if HAS_GPU else 'CPU, by faiss'} | {seconds['search']:.1f} | 1.0 |")
    for name, value in others.items():
        print(f"| {name} | {value:.1f} | {value / seconds['search']:.1f} |", flush=True)


def measure_exact(rows: Float32) -> None:
    """Compare every row with every other by faiss, and a share of the rows on the cores."""
    n_rows, threads = len(rows), available_cores()
    print(f"\nexact, {n_rows:,} x {rows.shape[1]}\n\n| search | s |\n|---|---|")
    for name, queries in (("faiss", rows), ("CPU", np.ascontiguousarray(rows[:: min(n_rows, 10 * SHARE)]))):
        search_with(name)
        step = backend.block_rows(rows.shape[1])
        blocks = ((rows[s : s + step], np.arange(s, min(s + step, n_rows))) for s in range(0, n_rows, step))
        seconds, _ = timed(lambda q=queries, b=blocks: brute_force(q, b, K + 1, threads))
        shown = "all rows" if len(queries) == n_rows else f"{len(queries):,} rows on {threads} cores, scaled"
        print(f"| {name}, {shown} | {seconds * n_rows / len(queries):.1f} |", flush=True)


def measure_embedding(models: Sequence[str], folder: str) -> None:
    """Run `benchmarks.embed` for some models."""
    command = [sys.executable, "-m", "benchmarks.embed", "--folder", folder, "--parts", "model"]
    device = ["--device", "cuda", "--samples", "8192", "--batch-size", "256"] if HAS_GPU else []
    print(flush=True)
    subprocess.run([*command, *device, "--models", *models], check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts that fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", help="for the tars of `embed`; without it, that part is left out")
    parser.add_argument("--minutes", type=float, default=10, help="limit (%(default)s)")
    parser.add_argument("--check-rows", type=int, default=100_000, help="0 leaves it out (%(default)s)")
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--exact", type=int, default=2_000_000, help="0 leaves it out (%(default)s)")
    parser.add_argument("--models", nargs="*", default=["ViT-B-32", "ViT-L-14"])
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--recall", type=float, default=0.95, help="target recall (%(default)s)")
    options = parser.parse_args(argv)
    name = torch.cuda.get_device_name() if HAS_GPU else "no GPU"
    print(f"{name}, {platform.machine()}, {available_cores()} cores, faiss {faiss.__version__}, ", end="")
    print(f"torch {torch.__version__}\n")
    clock = Clock(options.minutes)
    before = backend.choose_search
    try:
        if options.check_rows:
            check_bits(options.check_rows, options.dims)
        for n_rows in options.rows:
            # A guess: 15 s for each million rows, on 16 cores and a GPU.
            if clock.allows(f"graph of {n_rows:,} rows", 15e-6 * n_rows):
                measure_graph(pool(n_rows, options.dims), options.recall)
        if options.exact and clock.allows("exact", 30e-12 * options.exact**2 / 2):
            measure_exact(pool(options.exact, options.dims))
        if options.folder and options.models and clock.allows("embed", 60):
            measure_embedding(options.models, options.folder)
    finally:
        backend.choose_search = before


if __name__ == "__main__":
    main()
