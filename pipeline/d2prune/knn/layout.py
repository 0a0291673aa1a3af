"""Lays points out in two dimensions, neighbours together: t-SNE of the kNN graph (openTSNE, extra `map`).

Unit rows [N, D] in, coordinates [N, 2] out. Invariant: a function of the rows and the seed on one
machine, whatever its threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.extras import require
from d2prune.knn.block_search import NO_POSITION
from d2prune.knn.in_memory import knn_graph_report

Float32 = NDArray[np.float32]
Report = Callable[[str, float], None]

K = 15
"""Neighbours of a point that pull it."""
SIDE = 65_535
"""Coordinates are whole numbers from 0 to this."""
_COMPONENTS, _FIT_ROWS, _BLOCK = 128, 10_000, 8_192
_RECALL = 0.9
_EARLY, _LATE, _EXAGGERATION = 250, 500, 12
_REPORT_EVERY = 25
# Below, a tree is faster than interpolation on a grid, and waiting for other threads takes longer than
# what they do.
_GRID_FROM = 10_000


def require_layout(need: str) -> None:
    """Check that the extra is installed.

    Raises:
        MissingExtraError: it is not.
    """
    require("openTSNE", need)


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
        MissingExtraError: the extra `map` is not installed.
    """
    require_layout("map")
    say = report or (lambda step, done: None)
    n = len(short_NC)
    if n < 5:
        angle_N = 2 * np.pi * np.arange(n) / max(n, 1)
        return to_grid(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1))
    say("finding neighbours", 0.0)
    found = knn_graph_report(
        short_NC, min(K, n - 1), target_recall=_RECALL, seed=seed, threads=threads, recall_queries=512
    )
    # In a list of fewer samples than K, the rest are missing; the sample itself neither pulls nor pushes.
    missing_NK = found.neighbours == NO_POSITION
    neighbours_NK = np.where(missing_NK, np.arange(n)[:, None], found.neighbours)
    sq_distances_NK = np.where(missing_NK, np.float32(0), found.sq_distances)
    centred = short_NC - short_NC.mean(axis=0)
    start_N2 = (centred @ principal_axes(centred, seed, 2)).astype(np.float64)
    # Equal points would never part.
    noise_N2 = np.random.default_rng(seed).normal(size=(n, 2))
    start_N2 = start_N2 / (start_N2[:, 0].std() or 1.0) * 1e-4 + noise_N2 * 1e-6
    return to_grid(_optimise(neighbours_NK, sq_distances_NK, start_N2, seed, threads, say))


def _optimise(
    indices_NK: NDArray[np.int64],
    sq_distances_NK: Float32,
    start_N2: NDArray[np.float64],
    seed: int,
    threads: int,
    say: Report,
) -> NDArray[np.float64]:
    """t-SNE of a kNN graph from given coordinates."""
    # Import scikit-learn, which takes a second.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    k, on_grid = indices_NK.shape[1], len(indices_NK) >= _GRID_FROM
    affinities = Uniform(knn_index=PrecomputedNeighbors(indices_NK, np.sqrt(sq_distances_NK)), k_neighbors=k)
    placed: Any = TSNEEmbedding(
        start_N2,
        affinities,
        negative_gradient_method="fft" if on_grid else "bh",
        n_jobs=threads if on_grid else 1,
        random_state=seed,
    )
    total = _EARLY + _LATE
    for before, steps, exaggeration, momentum in (
        (0, _EARLY, _EXAGGERATION, 0.5),
        (_EARLY, _LATE, None, 0.8),
    ):

        def tell(step: int, error: float, embedding: Any, before: int = before) -> None:
            say("placing points", (before + step) / total)

        placed = placed.optimize(
            steps,
            exaggeration=exaggeration,
            momentum=momentum,
            callbacks=[tell],
            callbacks_every_iters=_REPORT_EVERY,
        )
    return np.asarray(placed, np.float64)


def to_grid(placed_N2: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Coordinates as whole numbers from 0 to SIDE, centred, with one scale for both axes."""
    if not len(placed_N2):
        return np.zeros((0, 2), np.uint16)
    low, high = placed_N2.min(axis=0), placed_N2.max(axis=0)
    span = float((high - low).max()) or 1.0
    scaled = (placed_N2 - (low + high) / 2) / span * SIDE + SIDE / 2
    return np.asarray(np.clip(np.rint(scaled), 0, SIDE), np.uint16)
