"""Places points whose kNN graph is known in two dimensions: t-SNE, neighbours together.

`exact_layout` places up to `EXACT_BELOW` points, openTSNE (extra `map`) more. Invariant: a function of
the points, their neighbours and the seed on one machine, whatever its threads.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.extras import require
from d2prune.knn import exact_layout

Float32 = NDArray[np.float32]
Report = Callable[[str, float], None]

K = 15
"""Neighbours of a point that pull it."""
SIDE = 65_535
"""Coordinates are whole numbers from 0 to this."""
EXACT_BELOW = 20_000
"""Fewer points take less time with every pair counted, and need no extra."""
_EARLY, _LATE, _EXAGGERATION = 250, 500, 12
_REPORT_EVERY = 25
_POWER_STEPS = 12


def require_layout(points: int, need: str) -> None:
    """Check that the extra is installed, if so many points need it.

    Raises:
        MissingExtraError: it is not.
    """
    if points >= EXACT_BELOW:
        require("openTSNE", need)


def lay_out_graph(
    points_ND: Float32,
    neighbours_NK: NDArray[np.int64],
    sq_distances_NK: Float32,
    seed: int,
    threads: int = 1,
    report: Report | None = None,
) -> NDArray[np.uint16]:
    """Lay points out whose nearest neighbours are known; see `layout`.

    Args:
        points_ND: float32 [N, D], unit rows; their first two principal axes are where the points begin.
        neighbours_NK: int64 [N, K].
        sq_distances_NK: float32 [N, K].
        seed: of every random choice.
        threads: changes speed only.
        report: gets the step and the share of the work that is done.
    """
    say = report or (lambda step, done: None)
    n = len(points_ND)
    if n < 5:
        angle_N = 2 * np.pi * np.arange(n) / max(n, 1)
        return to_grid(np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1))
    start_N2 = _project_to_plane(points_ND, seed)
    # Equal points would never part.
    noise_N2 = np.random.default_rng(seed).normal(size=(n, 2))
    start_N2 = start_N2 / (start_N2[:, 0].std() or 1.0) * 1e-4 + noise_N2 * 1e-6
    if n >= EXACT_BELOW:
        return to_grid(_optimise(neighbours_NK, sq_distances_NK, start_N2, seed, threads, say))
    from_E, to_E = np.repeat(np.arange(n), neighbours_NK.shape[1]), neighbours_NK.reshape(-1)
    other = from_E != to_E
    placed_N2 = exact_layout.place(
        start_N2, from_E[other], to_E[other], threads, lambda done: say("placing points", done)
    )
    return to_grid(placed_N2.astype(np.float64))


def _project_to_plane(points_ND: Float32, seed: int) -> NDArray[np.float64]:
    """Coordinates on the two directions in which the points vary most, float64 [N, 2].

    By power iteration, since all eigenvectors of 1,024 dimensions take longer than the layout. Signs are
    fixed: the largest loading is positive.
    """
    centred_ND = points_ND - points_ND.mean(axis=0)
    axes_D2 = np.random.default_rng(seed).normal(size=(points_ND.shape[1], 2)).astype(np.float32)
    for _ in range(_POWER_STEPS):
        # One axis at a time: of a product with two columns, BLAS copies the whole matrix first.
        spread_2D = np.stack([(centred_ND @ axis_D) @ centred_ND for axis_D in axes_D2.T])
        axes_D2, _ = np.linalg.qr(spread_2D.T)
    largest = axes_D2[np.abs(axes_D2).argmax(axis=0), np.arange(axes_D2.shape[1])]
    placed = np.zeros((len(points_ND), 2))
    placed[:, : axes_D2.shape[1]] = centred_ND @ (axes_D2 * np.where(largest < 0, -1, 1))
    return placed


def _optimise(
    indices_NK: NDArray[np.int64],
    sq_distances_NK: Float32,
    start_N2: NDArray[np.float64],
    seed: int,
    threads: int,
    say: Report,
) -> NDArray[np.float64]:
    """t-SNE of a kNN graph from given coordinates, by openTSNE."""
    # Import scikit-learn, which takes a second.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    k = indices_NK.shape[1]
    affinities = Uniform(knn_index=PrecomputedNeighbors(indices_NK, np.sqrt(sq_distances_NK)), k_neighbors=k)
    placed: Any = TSNEEmbedding(
        start_N2, affinities, negative_gradient_method="fft", n_jobs=threads, random_state=seed
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
