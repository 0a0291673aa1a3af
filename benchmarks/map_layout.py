"""Layouts of the explorer's map compared: seconds, and how many nearest neighbours stay neighbours.

`python benchmarks/map_layout.py PARQUET [PARQUET ...] --sizes 1000 10000` reads a column `jpg` of encoded
images, such as CIFAR-10's, takes 16 x 16 pixels as features, and prints a table. More rows than the files
hold are made by mirroring images.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from d2prune.knn.features import unit_rows
from d2prune.knn.in_memory import knn_graph_report

K = 15
QUERIES = 1_000
Float32 = NDArray[np.float32]


def read_features(paths: list[str], wanted: int) -> Float32:
    """Centred pixels, float32 [N, 768]."""
    rows = []
    for path in paths:
        for data in pq.read_table(path, columns=["jpg"])["jpg"].to_pylist():
            image = Image.open(io.BytesIO(data)).convert("RGB").resize((16, 16))
            rows.append(np.asarray(image, np.float32))
            if len(rows) == wanted:
                break
    pixels = np.stack(rows)
    if len(pixels) < wanted:
        pixels = np.concatenate([pixels, pixels[: wanted - len(pixels), :, ::-1]])
    flat = pixels[:wanted].reshape(min(wanted, len(pixels)), -1)
    return unit_rows(flat - flat.mean(0))


def pca(points_ND: Float32) -> Float32:
    """The first two principal components, float32 [N, 2]."""
    centred = points_ND - points_ND.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, :-3:-1], np.float32)


def umap(
    points_ND: Float32, indices_NK: NDArray[np.int64], distances_NK: Float32, start_N2: Float32
) -> Float32:
    """UMAP of the ready neighbours, one thread, default number of epochs."""
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    own = np.arange(len(points_ND))[:, None]
    indices = np.hstack([own, indices_NK]).astype(np.int32)
    distances = np.hstack([np.zeros_like(own, np.float32), distances_NK])
    state = np.random.RandomState(0)
    graph = fuzzy_simplicial_set(points_ND, K + 1, state, "euclidean", {}, indices, distances)[0]
    a, b = find_ab_params(1.0, 0.1)
    scaled = (10 * start_N2 / np.abs(start_N2).max()).astype(np.float32)
    return np.asarray(
        simplicial_set_embedding(
            points_ND, graph, 2, 1.0, a, b, 1.0, 5, None, scaled, state, "euclidean", {}, False, {}, False
        )[0]
    )


def tsne(
    points_ND: Float32, indices_NK: NDArray[np.int64], distances_NK: Float32, start_N2: Float32
) -> Float32:
    """openTSNE of the ready neighbours, default number of iterations."""
    from openTSNE import TSNE
    from openTSNE.affinity import Uniform
    from openTSNE.initialization import rescale
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    near = PrecomputedNeighbors(indices_NK, distances_NK)
    affinities = Uniform(knn_index=near, k_neighbors=K)
    fitted = TSNE(n_jobs=2, random_state=0, negative_gradient_method="fft")
    return np.asarray(fitted.fit(affinities=affinities, initialization=rescale(start_N2.astype(np.float64))))


def preserved(indices_NK: NDArray[np.int64], layout_N2: Float32) -> float:
    """Share of the K nearest neighbours that are among the K nearest in the layout."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(layout_N2))[:QUERIES]
    hits = 0
    for row in rows:
        squared = ((layout_N2 - layout_N2[row]) ** 2).sum(1)
        squared[row] = np.inf
        hits += len(np.intersect1d(np.argpartition(squared, K)[:K], indices_NK[row]))
    return hits / (K * len(rows))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1_000, 10_000])
    parser.add_argument("--methods", nargs="+", default=["pca", "umap", "tsne"])
    arguments = parser.parse_args()
    points = read_features(arguments.paths, max(arguments.sizes))
    print(f"| N | layout | wall s | CPU s | neighbours kept of {K} |\n|---|---|---|---|---|", flush=True)
    for size in arguments.sizes:
        points_ND = points[np.random.default_rng(0).permutation(len(points))[:size]]

        def timed(name: str, work: Callable[[], Float32], size: int = size) -> Float32:
            wall, cpu = time.perf_counter(), time.process_time()
            layout = work()
            took, used = time.perf_counter() - wall, time.process_time() - cpu
            share = preserved(near.neighbours, layout) if len(layout) == size and layout.shape[1] == 2 else 0
            print(f"| {size:,} | {name} | {took:.1f} | {used:.1f} | {share:.1%} |", flush=True)
            return layout

        wall, cpu = time.perf_counter(), time.process_time()
        near = knn_graph_report(points_ND, K, target_recall=0.9, recall_queries=256)
        print(f"| {size:,} | kNN graph | {time.perf_counter() - wall:.1f} "
              f"| {time.process_time() - cpu:.1f} | |", flush=True)  # fmt: skip
        distances_NK = np.sqrt(near.sq_distances)
        start = timed("pca", lambda: pca(points_ND))
        for name, method in (("umap", umap), ("tsne", tsne)):
            if name in arguments.methods:
                timed(name, lambda: method(points_ND, near.neighbours, distances_NK, start))  # noqa: B023


if __name__ == "__main__":
    main()
