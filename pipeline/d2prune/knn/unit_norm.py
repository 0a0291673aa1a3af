"""Convert embeddings of any scale to the float16 unit vectors of an embed artifact.

Invariant: a row's bits depend on that row alone, on every machine: sums are in float64, in a fixed
order. Rows that already have unit norm, within the precision of float16, are only rounded, so that
embeddings made by the embed stage are imported unchanged.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

NORM_TOLERANCE = 2.0**-10
"""Largest distance of a squared norm from 1: rounding to float16 changes it by at most 2^-10 of its value."""


def unit_halves(rows_ND: NDArray[Any]) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Scale every row to norm 1 and round it to float16.

    Args:
        rows_ND: float16, float32 or float64 [N, D].

    Returns:
        float16 [N, D], and bool [N]: False for rows that cannot be normalised (all zeros, NaN or
        infinite), whose values are undefined.
    """
    sq_norm_N = sq_norms(rows_ND)
    good_N = (sq_norm_N > 0) & np.isfinite(sq_norm_N)
    off_N = np.flatnonzero(good_N & (np.abs(sq_norm_N - 1.0) > NORM_TOLERANCE))
    with np.errstate(over="ignore", invalid="ignore"):
        out_ND = rows_ND.astype(np.float16, copy=bool(len(off_N)))
        if len(off_N):
            scaled = rows_ND[off_N].astype(np.float64) / np.sqrt(sq_norm_N[off_N])[:, None]
            out_ND[off_N] = scaled.astype(np.float32).astype(np.float16)
    return out_ND, good_N


def sq_norms(rows_ND: NDArray[Any]) -> NDArray[np.float64]:
    """Return float64 [N]: the squared norm of each row of floats [N, D]."""
    if rows_ND.dtype == np.float16:
        return np.asarray(_sq_norms_of_halves(np.ascontiguousarray(rows_ND).view(np.uint16), _squares()))
    return np.asarray(_dots(np.ascontiguousarray(rows_ND), np.ascontiguousarray(rows_ND)))


def cosines(left_ND: NDArray[np.float16], right_ND: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return float32 [N]: the inner product of each pair of unit rows."""
    return np.asarray(_dots(left_ND.astype(np.float32), right_ND.astype(np.float32)), np.float32)


@functools.cache
def _squares() -> NDArray[np.float64]:
    """Return the square of every float16, indexed by its bits."""
    with np.errstate(invalid="ignore"):
        return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64) ** 2


@kernel
def _sq_norms_of_halves(bits_ND: NDArray[np.uint16], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    # numpy converts float16 at 0.2 GB/s; a table of squares takes a twelfth of the time.
    count, width = bits_ND.shape
    n_unrolled = width - width % 4
    out_N = np.empty(count)
    for n in range(count):
        s0 = s1 = s2 = s3 = 0.0
        for d in range(0, n_unrolled, 4):
            s0 += squares[bits_ND[n, d]]
            s1 += squares[bits_ND[n, d + 1]]
            s2 += squares[bits_ND[n, d + 2]]
            s3 += squares[bits_ND[n, d + 3]]
        total = (s0 + s1) + (s2 + s3)
        for d in range(n_unrolled, width):
            total += squares[bits_ND[n, d]]
        out_N[n] = total
    return out_N


@kernel
def _dots(left_ND: NDArray[Any], right_ND: NDArray[Any]) -> NDArray[np.float64]:
    count, width = left_ND.shape
    n_unrolled = width - width % 4
    out_N = np.empty(count)
    for n in range(count):
        s0 = s1 = s2 = s3 = 0.0
        for d in range(0, n_unrolled, 4):
            s0 += np.float64(left_ND[n, d]) * np.float64(right_ND[n, d])
            s1 += np.float64(left_ND[n, d + 1]) * np.float64(right_ND[n, d + 1])
            s2 += np.float64(left_ND[n, d + 2]) * np.float64(right_ND[n, d + 2])
            s3 += np.float64(left_ND[n, d + 3]) * np.float64(right_ND[n, d + 3])
        total = (s0 + s1) + (s2 + s3)
        for d in range(n_unrolled, width):
            total += np.float64(left_ND[n, d]) * np.float64(right_ND[n, d])
        out_N[n] = total
    return out_N
