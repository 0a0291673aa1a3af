"""Normalises embeddings into the unit rows that distances are measured on.

Reads image and text embeddings, float16, float32 or float64 [N, D]; returns float32 rows of norm 1.
Invariant: a row's bits depend on that row alone, not on its batch. A degenerate row (zero, NaN or
infinite) is refused by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_rows
from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import parallel_ranges
from d2prune.errors import ArgumentError
from d2prune.knn.distances import sq_distance_float64
from d2prune.knn.feature_kind import FeatureKind

Float32 = NDArray[np.float32]

# Rows normalised at a time: 64 x 1,536 x 4 bytes stay in the second-level cache.
_ROWS = 64


class DegenerateEmbeddingError(ArgumentError):
    """An embedding that cannot be normalised."""

    def __init__(self, name: str, row: int, fault: str, sample: str = "") -> None:
        """Compose the message.

        Args:
            name: what the row is, such as "image embedding".
            row: its number in the pool.
            fault: the values found.
            sample: the sample's name in the pool if known, with a leading space.
        """
        super().__init__(
            f"{name} of row {row}{sample}: found {fault}; expected finite values that are not all zero. "
            "Remove this sample from the pool"
        )
        self.name, self.row, self.fault = name, row, fault


def features(
    kind: FeatureKind, image_ND: NDArray[Any] | None, text_ND: NDArray[Any] | None, first_row: int = 0
) -> Float32:
    """Return the rows that distances are measured on.

    Args:
        kind: "image", "text", or "image+text": each normalised, concatenated, normalised
            (DataComp's choice in the paper's section 4).
        image_ND: floating [N, D]; ignored if `kind` is "text".
        text_ND: floating [N, D]; ignored if `kind` is "image".
        first_row: number of row 0 in the pool, for messages.

    Returns:
        float32 [N, D], or [N, 2 D] for "image+text"; unit norm.

    Raises:
        ArgumentError: unknown kind, a missing side, or shapes that differ.
        DegenerateEmbeddingError: a row is zero, NaN or infinite.
    """
    sides = {"image": [("image", image_ND)], "text": [("text", text_ND)]}
    sides["image+text"] = sides["image"] + sides["text"]
    if kind not in sides:
        raise ArgumentError(f"features: found {kind!r}; expected image, text or image+text")
    given = []
    for name, rows_ND in sides[kind]:
        if rows_ND is None:
            raise ArgumentError(f"features {kind!r}: found no {name} embeddings; expected float [N, D]")
        given.append((f"{name} embedding", rows_ND))
    return _normalise_sides(given, first_row, threads=1)


def combine_embeddings(image_emb: ArrayLike, text_emb: ArrayLike) -> Float32:
    """Combine image and text embeddings of pairs into the rows that a run measures distances on.

    Each side is normalised, both are concatenated, and the result is normalised: the squared distance
    of two pairs is the mean of the squared distances of their images and of their captions. That is
    `graph.features: image+text`, DataComp's choice in the paper's section 4.

    Args:
        image_emb: numbers [N, D], in an array, tensor, frame or list (`d2prune.arguments`).
        text_emb: numbers [N, D2], likewise.

    Returns:
        float32 [N, D + D2], unit norm, for `d2_prune` and `knn_graph`.

    Raises:
        ArgumentError: not matrices of numbers, or of different lengths.
        DegenerateEmbeddingError: a row is zero, NaN or infinite.
    """
    return features("image+text", as_rows(image_emb, "image_emb"), as_rows(text_emb, "text_emb"))


def unit_rows(
    rows_ND: NDArray[Any], first_row: int = 0, name: str = "embedding", threads: int = 1
) -> Float32:
    """Normalise every row: float64 norm in a fixed order, one rounding to float32.

    Args:
        rows_ND: float16, float32 or float64 [N, D].
        first_row: number of row 0, for messages.
        name: what a row is, for messages.
        threads: workers; changes speed only.

    Returns:
        float32 [N, D].

    Raises:
        ArgumentError: not a floating matrix with at least one column.
        DegenerateEmbeddingError: a row is zero, NaN or infinite.
    """
    return _normalise_sides([(name, rows_ND)], first_row, threads)


def _normalise_sides(sides: Sequence[tuple[str, NDArray[Any]]], first_row: int, threads: int) -> Float32:
    """Normalise the rows of each side; concatenate and normalise again if there are two.

    Works in the rows of the result, a few at a time: at 2 x 768 dimensions, temporaries the size of
    a part doubled the time, because each of their pages is touched for the first time.
    """
    for name, rows_ND in sides:
        if rows_ND.ndim != 2 or rows_ND.shape[1] == 0 or not np.issubdtype(rows_ND.dtype, np.floating):
            raise ArgumentError(
                f"{name}s: found {rows_ND.dtype} {rows_ND.shape}; expected floating [N, D] with D >= 1"
            )
    counts = [len(rows_ND) for _, rows_ND in sides]
    if len(set(counts)) > 1:
        raise ArgumentError(
            f"embeddings: found {counts[0]} of images and {counts[1]} of texts; expected equal numbers"
        )
    bounds = np.cumsum([0, *(rows_ND.shape[1] for _, rows_ND in sides)])
    out_ND = np.empty((counts[0], int(bounds[-1])), np.float32)
    zeros_D = np.zeros(out_ND.shape[1], np.float32)
    faults: list[tuple[int, int]] = []

    def normalise(start: int, stop: int) -> None:
        for low in range(start, stop, _ROWS):
            block_ND = out_ND[low : min(low + _ROWS, stop)]
            with np.errstate(over="ignore"):
                for (_, rows_ND), left, right in zip(sides, bounds, bounds[1:], strict=False):
                    _widen(rows_ND[low : low + len(block_ND)], block_ND[:, left:right])
            row, side = _normalise(block_ND, bounds, zeros_D)
            if row >= 0:
                faults.append((low + row, side))
                return

    parallel_ranges(normalise, counts[0], threads, chunk=4096)
    if faults:
        row, side = min(faults)
        name, rows_ND = sides[side]
        fault = "all zeros" if not rows_ND[row].any() else "NaN, infinite or too large values"
        raise DegenerateEmbeddingError(name, first_row + row, fault)
    return out_ND


def _widen(rows_ND: NDArray[Any], out_ND: Float32) -> None:
    """Copy rows to float32; for float16 in a tenth of the time that numpy takes."""
    if rows_ND.dtype == np.float16:
        _widen_halves(np.ascontiguousarray(rows_ND).view(np.uint16), out_ND)
    else:
        out_ND[:] = rows_ND


@kernel
def _widen_halves(bits_ND: NDArray[np.uint16], out_ND: Float32) -> None:
    """Convert IEEE 754 binary16 to binary32, exactly for all bit patterns.

    Integer operations, because these are vectorised on every machine.
    """
    row_D = np.empty(bits_ND.shape[1], np.float32)
    for n in range(bits_ND.shape[0]):
        for d in range(bits_ND.shape[1]):
            half = np.uint32(bits_ND[n, d])
            exponent, fraction = half & np.uint32(0x7C00), half & np.uint32(0x03FF)
            rebias = np.uint32((127 - 15) << 23)
            if exponent == np.uint32(0x7C00):
                rebias = np.uint32((255 - 31) << 23)  # infinity and NaN keep the largest exponent
            wide = np.uint32(((half & np.uint32(0x7FFF)) << np.uint32(13)) + rebias).view(np.float32)
            if exponent == np.uint32(0):
                wide = np.float32(np.int32(fraction)) * np.float32(2.0**-24)
            row_D[d] = -wide if half & np.uint32(0x8000) else wide
        out_ND[n] = row_D


# The default error model tests every division for zero, which prevents vectorisation and is five
# times slower.
@kernel(error_model="numpy")
def _normalise(rows_ND: Float32, bounds: NDArray[np.int64], zeros_D: Float32) -> tuple[int, int]:
    """Normalise each side of each row in place, then the row as a whole if it has several sides.

    Returns:
        (row, side) of the first side that cannot be normalised; (-1, -1) if there is none.
    """
    n_sides = len(bounds) - 1
    for n in range(rows_ND.shape[0]):
        row_D = rows_ND[n]
        for side in range(n_sides):
            if not _scale_to_unit(row_D[bounds[side] : bounds[side + 1]], zeros_D):
                return n, side
        if n_sides > 1:
            _scale_to_unit(row_D, zeros_D)
    return -1, -1


@kernel(error_model="numpy")
def _scale_to_unit(row_D: Float32, zeros_D: Float32) -> bool:
    """Scale a vector to norm 1 in place; return False if its norm is zero or not finite."""
    sq_norm = sq_distance_float64(row_D, zeros_D)
    if not (sq_norm > 0.0 and sq_norm < np.inf):
        return False
    norm = np.sqrt(sq_norm)
    for d in range(row_D.shape[0]):
        row_D[d] = np.float32(np.float64(row_D[d]) / norm)
    return True
