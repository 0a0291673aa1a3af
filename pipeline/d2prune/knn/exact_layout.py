"""t-SNE in which every point repels every other one, without approximation: for thousands of points.

Up to 3,000 points it takes less time than importing a package for it. Edges of a kNN graph in,
coordinates out; the result does not depend on the number of threads. N points, E directed edges.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_EARLY, _STEPS = 100, 250
_EXAGGERATION = np.float32(12)
_REPORT_EVERY = 25
# Fewer points are placed faster than threads start.
_THREADS_FROM = 4_000


def place(
    start_N2: NDArray[np.float64], from_E: Int64, to_E: Int64, threads: int, report: Callable[[float], None]
) -> Float32:
    """Move points along the gradient of t-SNE (van der Maaten and Hinton 2008), all edges weighted alike.

    Args:
        start_N2: float64 [N, 2], where the points begin.
        from_E: int64 [E], one end of each edge; an edge pulls both ends.
        to_E: int64 [E], the other end.
        threads: changes speed only.
        report: gets the share of the steps that is done.

    Returns:
        float32 [N, 2].
    """
    n = len(start_N2)
    at_2N = np.ascontiguousarray(start_N2.T, np.float32)
    ends = _list_ends(n, from_E, to_E)
    weight = np.float32(1 / max(2 * len(from_E), 1))
    rate = np.float32(max(n / float(_EXAGGERATION), 50))
    speed_2N, gain_2N = np.zeros_like(at_2N), np.ones_like(at_2N)
    push_2N, pull_2N, sum_N = np.empty_like(at_2N), np.empty_like(at_2N), np.empty(n, np.float32)
    for step in range(_STEPS):
        if step % _REPORT_EVERY == 0:
            report(step / _STEPS)
        exaggeration, momentum = (_EXAGGERATION, 0.5) if step < _EARLY else (1, 0.8)
        _push_all(at_2N, push_2N, sum_N, threads)
        _pull(at_2N, *ends, pull_2N)
        pull_2N *= exaggeration * weight
        slope_2N = 4 * (pull_2N - push_2N / np.float32(sum_N.sum(dtype=np.float64)))
        # Gains as in the authors' code: faster while the direction stays the same.
        turns_2N = (slope_2N > 0) == (speed_2N > 0)
        gain_2N = np.maximum(np.where(turns_2N, gain_2N * 0.8, gain_2N + 0.2), 0.01)
        speed_2N = momentum * speed_2N - rate * gain_2N * slope_2N
        at_2N += speed_2N
    return np.ascontiguousarray(at_2N.T)


def _list_ends(n: int, from_E: Int64, to_E: Int64) -> tuple[Int64, Int64]:
    """The other ends of each point's edges in both directions: where they begin, int64 [N + 1], and they."""
    both = np.concatenate([from_E, to_E])
    order = np.argsort(both, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(both, minlength=n))]).astype(np.int64)
    return starts, np.concatenate([to_E, from_E])[order]


def _push_all(at_2N: Float32, push_2N: Float32, sum_N: Float32, threads: int) -> None:
    """`_push` for all points."""
    n = len(sum_N)
    if n < _THREADS_FROM or threads <= 1:
        _push(at_2N, 0, n, push_2N, sum_N)
    else:
        parallel_ranges(lambda start, stop: _push(at_2N, start, stop, push_2N, sum_N), n, threads)


@kernel(fastmath=True, error_model="numpy")
def _push(at_2N: Float32, start: int, stop: int, push_2N: Float32, sum_N: Float32) -> None:
    """The repulsion of all points on some, not yet divided by the sum of all similarities; and theirs.

    `error_model`, since a check for division by zero would keep LLVM from vectorising: ten times slower.
    """
    x_N, y_N = at_2N[0], at_2N[1]
    for i in range(start, stop):
        x, y = x_N[i], y_N[i]
        total, push_x, push_y = np.float32(0), np.float32(0), np.float32(0)
        for j in range(x_N.shape[0]):
            dx, dy = x - x_N[j], y - y_N[j]
            near = np.float32(1) / (np.float32(1) + dx * dx + dy * dy)
            total += near
            near *= near
            push_x += near * dx
            push_y += near * dy
        push_2N[0, i], push_2N[1, i] = push_x, push_y
        # Without the point itself, at distance 0.
        sum_N[i] = total - np.float32(1)


@kernel(error_model="numpy")
def _pull(at_2N: Float32, starts: Int64, ends: Int64, pull_2N: Float32) -> None:
    """The attraction along each point's edges, each of weight 1."""
    n = at_2N.shape[1]
    x_N, y_N = at_2N[0], at_2N[1]
    for i in range(n):
        pull_x, pull_y = np.float32(0), np.float32(0)
        for e in range(starts[i], starts[i + 1]):
            dx, dy = x_N[i] - x_N[ends[e]], y_N[i] - y_N[ends[e]]
            near = np.float32(1) / (np.float32(1) + dx * dx + dy * dy)
            pull_x += near * dx
            pull_y += near * dy
        pull_2N[0, i], pull_2N[1, i] = pull_x, pull_y
