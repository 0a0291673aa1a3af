"""Lays points out in two dimensions, neighbours together: finds neighbours, then see `graph_layout`.

Unit rows [N, D] in, coordinates [N, 2] out. Invariant: a function of the rows and the seed on one
machine, whatever its threads.
"""

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.graph_layout import K, Report, lay_out_graph, require_layout
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.top_k import NO_POSITION

Float32 = NDArray[np.float32]

_COMPONENTS, _FIT_ROWS, _BLOCK = 128, 10_000, 8_192
_RECALL = 0.9


def principal_axes(points_ND: Float32, seed: int, n_axes: int = _COMPONENTS) -> Float32:
    """The directions that hold most of the points' squared lengths, float32 [D, C], largest first.

    Signs are fixed: the largest loading is positive.
    """
    rows = np.random.default_rng(seed).permutation(len(points_ND))[:_FIT_ROWS]
    fitted = points_ND[np.sort(rows)].astype(np.float64)
    _, vectors = np.linalg.eigh(fitted.T @ fitted)
    axes = vectors[:, ::-1][:, :n_axes]
    largest = np.abs(axes).argmax(axis=0)
    signs = np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1, 1)
    return np.ascontiguousarray(axes * signs, np.float32)


def shorten(points_ND: Float32, axes_DC: Float32) -> Float32:
    """Unit rows of fewer dimensions: their coordinates on the axes, and the length that these miss.

    Returns:
        float32 [N, C + 1].
    """
    short = np.empty((len(points_ND), axes_DC.shape[1] + 1), np.float32)
    for start in range(0, len(points_ND), _BLOCK):
        rows = slice(start, start + _BLOCK)
        short[rows, :-1] = points_ND[rows] @ axes_DC
    short[:, -1] = np.sqrt(np.maximum(1 - (short[:, :-1] ** 2).sum(axis=1), 1e-12))
    return short


def layout(
    short_NC: Float32, seed: int, threads: int = 1, report: Report | None = None
) -> NDArray[np.uint16]:
    """Lay points out so that near ones are near.

    Args:
        short_NC: float32 [N, C], unit rows, such as `shorten` returns.
        seed: of every random choice.
        threads: changes speed only.
        report: gets the step and the share of the work that is done.

    Returns:
        uint16 [N, 2], 0 to SIDE; both axes have one scale.

    Raises:
        MissingExtraError: so many points need the extra `map`, which is not installed.
    """
    say = report or (lambda step, done: None)
    n = len(short_NC)
    require_layout(n, "map")
    if n < 5:
        return lay_out_graph(short_NC, np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32), seed)
    say("finding neighbours", 0.0)
    found = knn_graph_report(
        short_NC, min(K, n - 1), target_recall=_RECALL, seed=seed, threads=threads, recall_queries=512
    )
    # In a list of fewer samples than K, the rest are missing; the sample itself neither pulls nor pushes.
    missing_NK = found.neighbours == NO_POSITION
    neighbours_NK = np.where(missing_NK, np.arange(n)[:, None], found.neighbours)
    sq_distances_NK = np.where(missing_NK, np.float32(0), found.sq_distances)
    return lay_out_graph(short_NC, neighbours_NK, sq_distances_NK, seed, threads, say)
