"""Layouts of the explorer's map compared: seconds, and how many nearest neighbours stay neighbours.

`python -m benchmarks.map_layout PARQUET [PARQUET ...] --sizes 1000 10000` reads a column `jpg` of encoded
images, such as CIFAR-10's, takes 16 x 16 pixels as features, and prints a table. More rows than the files
hold are made by mirroring images. UMAP, which needs `pip install umap-learn`, gets the same neighbours and
the same start as the map's own t-SNE.
"""

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from d2prune.compiled.threads import available_cores
from d2prune.knn import layout
from d2prune.knn.features import unit_rows
from d2prune.knn.graph_layout import K
from d2prune.knn.in_memory import knn_graph_report

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
    flat = pixels[:wanted].reshape(len(pixels[:wanted]), -1)
    return unit_rows(flat - flat.mean(axis=0))


def neighbours_kept(points_ND: Float32, placed_N2: NDArray[Any], k: int = K, queries: int = 500) -> float:
    """Share of the k nearest neighbours of a point that are among its k nearest on the map, on average."""
    rows = np.random.default_rng(0).permutation(len(points_ND))[:queries]
    hits = 0
    for row in rows:
        true, shown = (
            np.argpartition(_distances(found_ND, row), k)[:k]
            for found_ND in (points_ND, placed_N2.astype(np.float64))
        )
        hits += len(np.intersect1d(true, shown))
    return hits / (k * len(rows))


def _distances(points_ND: NDArray[Any], row: int) -> NDArray[Any]:
    """Squared distances of a point to all others; infinite to itself."""
    distance_N = ((points_ND - points_ND[row]) ** 2).sum(axis=1)
    distance_N[row] = np.inf
    return np.asarray(distance_N)


def principal_plane(points_ND: Float32) -> Float32:
    """The first two principal components, float32 [N, 2]."""
    centred = points_ND - points_ND.mean(axis=0)
    return np.asarray(centred @ layout.principal_axes(centred, 0, 2))


def umap(points_ND: Float32) -> Float32:
    """UMAP of the nearest neighbours with its defaults, seeded and so in one thread."""
    from umap.umap_ import find_ab_params, fuzzy_simplicial_set, simplicial_set_embedding

    near = knn_graph_report(points_ND, K, target_recall=0.9, seed=0, recall_queries=512)
    own = np.arange(len(points_ND))[:, None]
    indices = np.hstack([own, near.neighbours]).astype(np.int32)
    distances = np.hstack([np.zeros_like(own, np.float32), np.sqrt(near.sq_distances)])
    state = np.random.RandomState(0)
    graph = fuzzy_simplicial_set(points_ND, K + 1, state, "euclidean", {}, indices, distances)[0]
    a, b = find_ab_params(1.0, 0.1)
    start = principal_plane(points_ND)
    start = (10 * start / np.abs(start).max()).astype(np.float32)
    placed = simplicial_set_embedding(
        points_ND, graph, 2, 1.0, a, b, 1.0, 5, None, start, state, "euclidean", {}, False, {}, False
    )
    return np.asarray(placed[0])


def tsne(points_ND: Float32) -> NDArray[np.uint16]:
    """The layout of the map."""
    short = layout.shorten(points_ND, layout.principal_axes(points_ND, 0))
    return layout.layout(short, 0, available_cores())


METHODS: dict[str, Callable[[Float32], NDArray[Any]]] = {"pca": principal_plane, "umap": umap, "tsne": tsne}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1_000, 10_000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    points = read_features(arguments.paths, max(arguments.sizes))
    print(f"| N | layout | wall s | CPU s | neighbours kept of {K} |\n|---|---|---|---|---|", flush=True)
    for size in arguments.sizes:
        points_ND = points[np.random.default_rng(0).permutation(len(points))[:size]]
        for name in arguments.methods:
            wall, cpu = time.perf_counter(), time.process_time()
            placed = METHODS[name](points_ND)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            share = neighbours_kept(points_ND, placed)
            print(f"| {size:,} | {name} | {wall:.1f} | {cpu:.1f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
