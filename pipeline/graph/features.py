"""Embeddings to the unit rows the graph is built on.

Reads image and text embeddings, float16 or float32 [N, D]; gives float32 rows of norm 1. Invariant: a row's bits depend
on that row alone, not on the batch it came in. A row with no direction (zero, NaN, infinite) is refused by number.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.graph.distances import sq_distance_float64
from pipeline.graph.parallel import parallel_ranges

Float32 = NDArray[np.float32]
FeatureKind = Literal["image", "text", "image+text"]


class NoDirectionError(UserError):
    """A row that cannot be normalised: what it is, its number in the pool, and why."""

    def __init__(self, name: str, row: int, fault: str, sample: str = "") -> None:
        """`sample`: what the row's owner calls it, in brackets, where that is known."""
        super().__init__(f"{name} of row {row}{sample} {fault}: it cannot be normalised; reject this sample")
        self.name, self.row, self.fault = name, row, fault


def features(
    kind: FeatureKind, image_ND: NDArray[Any] | None, text_ND: NDArray[Any] | None, first_row: int = 0
) -> Float32:
    """Return the rows that distances are taken between.

    Args:
        kind: "image", "text", or "image+text": each normalised, concatenated, normalised (DataComp's choice in the
            paper's section 4).
        image_ND: floating [N, D] or None where `kind` leaves it out.
        text_ND: floating [N, D] or None where `kind` leaves it out.
        first_row: number of row 0 in the pool, for messages.

    Returns:
        float32 [N, D], or [N, 2 D] for "image+text"; unit norm.

    Raises:
        UserError: unknown kind, a side missing, shapes that differ, or a row without direction.
    """
    sides = {"image": [("image", image_ND)], "text": [("text", text_ND)]}
    sides["image+text"] = sides["image"] + sides["text"]
    if kind not in sides:
        raise UserError(f"graph.features: got {kind!r}, expected image, text or image+text")
    units = []
    for name, rows_ND in sides[kind]:
        if rows_ND is None:
            raise UserError(f"graph.features is {kind!r} but there are no {name} embeddings")
        units.append(unit_rows(rows_ND, first_row, f"{name} embedding"))
    if len(units) == 1:
        return units[0]
    if len(units[0]) != len(units[1]):
        raise UserError(f"{len(units[0])} image embeddings against {len(units[1])} text embeddings")
    return unit_rows(np.concatenate(units, axis=1), first_row, "image+text feature")


def unit_rows(rows_ND: NDArray[Any], first_row: int = 0, name: str = "embedding", threads: int = 1) -> Float32:
    """Normalise every row: float64 norm in a fixed order, one rounding to float32.

    Args:
        rows_ND: float16, float32 or float64 [N, D].
        first_row: number of row 0, for messages.
        name: what a row is, for messages.
        threads: workers; changes speed only.

    Returns:
        float32 [N, D].

    Raises:
        UserError: not a floating matrix with at least one column.
        NoDirectionError: a row is zero, NaN or infinite.
    """
    if rows_ND.ndim != 2 or rows_ND.shape[1] == 0 or not np.issubdtype(rows_ND.dtype, np.floating):
        raise UserError(f"{name}s: got {rows_ND.dtype} {rows_ND.shape}, expected floating [N, D] with D >= 1")
    out_ND = np.empty(rows_ND.shape, np.float32)
    zeros_D = np.zeros(rows_ND.shape[1], np.float32)
    faults = []

    def normalise(start: int, stop: int) -> None:
        with np.errstate(over="ignore"):
            source_ND = np.ascontiguousarray(rows_ND[start:stop], dtype=np.float32)
        fault = _normalise(source_ND, zeros_D, out_ND[start:stop])
        if fault >= 0:
            faults.append(start + fault)

    parallel_ranges(normalise, len(rows_ND), threads, chunk=4096)
    bad = min(faults, default=-1)
    if bad >= 0:
        fault = "is all zeros" if not rows_ND[bad].any() else "has NaN, infinite or too large values"
        raise NoDirectionError(name, first_row + bad, fault)
    return out_ND


# The default error model tests every division for zero, which keeps the loop from becoming vectors: five times slower.
@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _normalise(rows_ND: Float32, zeros_D: Float32, out_ND: Float32) -> int:
    for n in range(rows_ND.shape[0]):
        sq_norm = sq_distance_float64(rows_ND[n], zeros_D)
        if not (sq_norm > 0.0 and sq_norm < np.inf):
            return n
        norm = np.sqrt(sq_norm)
        for d in range(rows_ND.shape[1]):
            out_ND[n, d] = np.float32(np.float64(rows_ND[n, d]) / norm)
    return -1
