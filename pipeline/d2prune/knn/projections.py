"""Projections: short vectors that stand in for rows in matrix products, because they are cheaper.

Reads float32 rows; returns vectors of PROJECTED_DIMS dimensions. Invariant: a projection never
lengthens a distance beyond its stated error,

    |p(a) - p(b)| <= |a - b| + errors(a) + errors(b)

so a member whose projection is too far is itself too far, and products of projections exclude
members as those of rows do (`products`), at a quarter of the work for 512 dimensions. Like
rounding, projections change speed only.

The map has one coordinate per principal axis of the rows, and one more for the norm of the
residual, which lengthens nothing either: | |u| - |v| | <= |u - v|. The residual matters most
between rows and centroids, because centroids are means and have almost none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges
from d2prune.knn.products import multiply_floats

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

PROJECTED_DIMS = 128
# Rows used to find the axes, at most; more rows found no better axes.
_FIT_ROWS = 2048
# Projections pay if they are much shorter than the rows, and if the axes hold most of the rows'
# energy, unlike those of isotropic noise.
_LEAST_DIMS = 2 * PROJECTED_DIMS
_LEAST_SHARE = 0.85
# Projecting a row takes PROJECTED_DIMS float32 products, each several times as expensive as one of
# the products it replaces. Fitting takes 50 ms.
_LEAST_PAIRS_PER_ROW = 4 * PROJECTED_DIMS
_LEAST_PRODUCTS = 2**33
# Dimensions summed by one matrix product. Adding these partial sums one by one keeps the rounding
# error to that of few terms.
_SUMMED = 64
# Rows projected at a time, so that the partial sums stay in the second-level cache.
_CHUNK = 1024


@dataclass(frozen=True)
class ProjectedRows:
    """Projections of N rows.

    Attributes:
        values: float32 [N, W].
        errors: float32 [N], upper bounds of the norm of the float32 rounding error.
    """

    values: Float32
    errors: Float32

    @classmethod
    def empty(cls, n_rows: int, width: int) -> ProjectedRows:
        """Allocate the projections of `n_rows` rows."""
        return cls(np.empty((n_rows, width), np.float32), np.empty(n_rows, np.float32))

    def __getitem__(self, rows: slice | Int64) -> ProjectedRows:
        """Return the projections of some rows."""
        return ProjectedRows(self.values[rows], self.errors[rows])


class Projection:
    """A map from rows to projections, the same for both sides of a product."""

    def __init__(self, axes_DA: Float32) -> None:
        """Store the axes and measure how far they are from orthonormal.

        Args:
            axes_DA: float32 [D, A], nearly orthonormal columns.
        """
        self.width = axes_DA.shape[1] + 1
        self._axes = np.ascontiguousarray(axes_DA)
        axes = axes_DA.astype(np.float64)
        # Some orthonormal basis is within this distance of the axes, in the spectral norm.
        deviation = float(np.linalg.norm(axes.T @ axes - np.eye(axes.shape[1])))
        # The error of a float32 sum of n products, in any order, is at most a little above n 2^-24
        # times the norms of the factors.
        terms = _SUMMED + -(-axes_DA.shape[0] // _SUMMED)
        self._relative = deviation + terms * 1.1 * 2.0**-24 * float(np.sqrt(axes_DA.shape[1]))

    @classmethod
    def fit(cls, rows_ND: Float32, n_projected: int, n_pairs: int) -> Projection | None:
        """Find the principal axes of rows.

        Args:
            rows_ND: float32 [N, D], a sample of the rows to be compared.
            n_projected: rows that will be projected.
            n_pairs: pairs of them that will be compared.

        Returns:
            The map, or None if projections would not pay.
        """
        n_rows, n_dims = rows_ND.shape
        if n_dims < _LEAST_DIMS or n_rows < _LEAST_DIMS:
            return None
        if n_pairs * n_dims < _LEAST_PRODUCTS or n_pairs < n_projected * _LEAST_PAIRS_PER_ROW:
            return None
        sample = rows_ND[:: -(-n_rows // _FIT_ROWS)].astype(np.float64)
        shares, axes_DD = np.linalg.eigh(sample.T @ sample)
        if shares[-PROJECTED_DIMS + 1 :].sum() < _LEAST_SHARE * shares.sum():
            return None
        return cls(axes_DD[:, -PROJECTED_DIMS + 1 :].astype(np.float32))

    def project(self, rows_ND: Float32, threads: int = 1) -> ProjectedRows:
        """Project rows.

        Args:
            rows_ND: float32 [N, D], contiguous.
            threads: workers; changes speed only.
        """
        out = ProjectedRows.empty(len(rows_ND), self.width)

        def project_range(start: int, stop: int) -> None:
            rows = rows_ND[start:stop]
            projected = np.zeros((stop - start, self.width - 1), np.float32)
            for low in range(0, rows.shape[1], _SUMMED):
                projected += multiply_floats(rows[:, low : low + _SUMMED], self._axes[low : low + _SUMMED])
            values = out.values[start:stop]
            values[:, :-1] = projected
            _add_residual(rows_ND[start:stop], values, self._relative, out.errors[start:stop])

        parallel_ranges(project_range, len(rows_ND), threads, _CHUNK)
        return out


@kernel(fastmath={"reassoc", "nsz", "contract"})
def _sq_norm(row_D: Float32) -> float:
    total = 0.0
    for d in range(row_D.shape[0]):
        total += np.float64(row_D[d]) * np.float64(row_D[d])
    return total


@kernel
def _add_residual(rows_ND: Float32, values_NE: Float32, relative: float, errors_N: Float32) -> None:
    """Fill the last coordinate with the norm of the residual, and the errors."""
    last = values_NE.shape[1] - 1
    for n in range(rows_ND.shape[0]):
        sq_norm = _sq_norm(rows_ND[n])
        norm = np.sqrt(sq_norm)
        error = relative * norm
        sq_left = sq_norm - _sq_norm(values_NE[n, :last])
        # The projection's norm is known to within `error`, and its square to within the first term;
        # the second covers the rounding of the sums.
        sq_error = error * (2.0 * norm + 3.0 * error) + 2.0**-40 * sq_norm
        left = np.sqrt(max(sq_left, 0.0))
        high, low = np.sqrt(max(sq_left + sq_error, 0.0)), np.sqrt(max(sq_left - sq_error, 0.0))
        values_NE[n, last] = left
        errors_N[n] = (error + max(high - left, left - low) + 2.0**-23 * left) * (1.0 + 2.0**-20)
