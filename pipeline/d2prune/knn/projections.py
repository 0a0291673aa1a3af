"""Short images of rows, of which products are taken instead: a map that lengthens no distance.

Reads float32 rows; gives images of IMAGE_DIMS dimensions. Invariant: |image(a) - image(b)| <= |a - b| + errors(a) +
errors(b). So a member whose image is too far is too far itself, and products of images exclude
members as those of rows do (`products`), at a quarter of the work for 512 dimensions. Like
rounding, images change speed only.

The map: the coordinates along the main axes of the rows (a projection lengthens nothing), and one
more for the norm of what the axes leave out, because | |u| - |v| | <= |u - v|. The last one counts most between rows and centroids: these
are means, and leave hardly anything out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

IMAGE_DIMS = 128
# The axes are found on so many rows at most; more found no better ones.
_FIT_ROWS = 2048
# Images pay where they are much shorter than rows, and the axes hold most of them: isotropic noise
# has no axes.
_LEAST_DIMS = 2 * IMAGE_DIMS
_LEAST_SHARE = 0.85
# An image costs its row IMAGE_DIMS products in float32, several times dearer than those it
# shortens; fitting, 50 ms.
_LEAST_PAIRS_PER_ROW = 4 * IMAGE_DIMS
_LEAST_PRODUCTS = 2**33
# Dimensions summed by one product; the sums are added one by one, so that the error is that of few terms.
_SUMMED = 64
# Rows at a time: what is added up stays in the second-level cache.
_CHUNK = 1024


@dataclass(frozen=True)
class Images:
    """Images of N rows.

    Attributes:
        values: float32 [N, W].
        errors: float32 [N], upper bounds of the norm of what float32 took away.
    """

    values: Float32
    errors: Float32

    @classmethod
    def empty(cls, n_rows: int, width: int) -> Images:
        """Return room for the images of so many rows."""
        return cls(np.empty((n_rows, width), np.float32), np.empty(n_rows, np.float32))

    def __getitem__(self, rows: slice | Int64) -> Images:
        """Return the images of some rows."""
        return Images(self.values[rows], self.errors[rows])


class Projection:
    """A map from rows to images, the same for the rows on both sides of a product."""

    def __init__(self, axes_DA: Float32) -> None:
        """Keep the axes and how far they are from orthonormal.

        Args:
            axes_DA: float32 [D, A], nearly orthonormal columns.
        """
        self.width = axes_DA.shape[1] + 1
        self._axes = torch.from_numpy(np.ascontiguousarray(axes_DA))
        axes = axes_DA.astype(np.float64)
        # An orthonormal basis is no farther than this from these axes, in the spectral norm.
        stray = float(np.linalg.norm(axes.T @ axes - np.eye(axes.shape[1])))
        # A float32 sum of n products, in any order, strays by at most n 2^-24 of their factors'
        # norms, and a little.
        terms = _SUMMED + -(-axes_DA.shape[0] // _SUMMED)
        self._relative = stray + terms * 1.1 * 2.0**-24 * float(np.sqrt(axes_DA.shape[1]))

    @classmethod
    def fit(cls, rows_ND: Float32, n_images: int, n_pairs: int) -> Projection | None:
        """Find the main axes of rows.

        Args:
            rows_ND: float32 [N, D], like those to be compared.
            n_images: how many images will be taken.
            n_pairs: how many pairs of them will be compared.

        Returns:
            The map, or None where images would not pay.
        """
        n_rows, n_dims = rows_ND.shape
        if n_dims < _LEAST_DIMS or n_rows < _LEAST_DIMS:
            return None
        if n_pairs * n_dims < _LEAST_PRODUCTS or n_pairs < n_images * _LEAST_PAIRS_PER_ROW:
            return None
        sample = rows_ND[:: -(-n_rows // _FIT_ROWS)].astype(np.float64)
        shares, axes_DD = np.linalg.eigh(sample.T @ sample)
        if shares[-IMAGE_DIMS + 1 :].sum() < _LEAST_SHARE * shares.sum():
            return None
        return cls(axes_DD[:, -IMAGE_DIMS + 1 :].astype(np.float32))

    def images(self, rows_ND: Float32, threads: int = 1) -> Images:
        """Return the images of rows.

        Args:
            rows_ND: float32 [N, D], contiguous.
            threads: workers; changes speed only.
        """
        images = Images.empty(len(rows_ND), self.width)

        def project(start: int, stop: int) -> None:
            rows = torch.from_numpy(rows_ND[start:stop])
            projected = torch.zeros((stop - start, self.width - 1))
            for low in range(0, rows.shape[1], _SUMMED):
                projected += torch.mm(rows[:, low : low + _SUMMED], self._axes[low : low + _SUMMED])
            values = images.values[start:stop]
            values[:, :-1] = projected.numpy()
            _leave_out(rows_ND[start:stop], values, self._relative, images.errors[start:stop])

        parallel_ranges(project, len(rows_ND), threads, _CHUNK)
        return images


@kernel(fastmath={"reassoc", "nsz", "contract"})
def _sq_norm(row_D: Float32) -> float:
    total = 0.0
    for d in range(row_D.shape[0]):
        total += np.float64(row_D[d]) * np.float64(row_D[d])
    return total


@kernel
def _leave_out(rows_ND: Float32, values_NE: Float32, relative: float, errors_N: Float32) -> None:
    """Fill the last coordinate with the norm of what the others leave out, and the errors."""
    last = values_NE.shape[1] - 1
    for n in range(rows_ND.shape[0]):
        sq_norm = _sq_norm(rows_ND[n])
        norm = np.sqrt(sq_norm)
        error = relative * norm
        sq_left = sq_norm - _sq_norm(values_NE[n, :last])
        # The projection's norm is known to `error`, so its square to this; the rest is the rounding
        # of the sums.
        stray = error * (2.0 * norm + 3.0 * error) + 2.0**-40 * sq_norm
        left = np.sqrt(max(sq_left, 0.0))
        high, low = np.sqrt(max(sq_left + stray, 0.0)), np.sqrt(max(sq_left - stray, 0.0))
        values_NE[n, last] = left
        errors_N[n] = (error + max(high - left, left - low) + 2.0**-23 * left) * (1.0 + 2.0**-20)
