"""Fast inner products of blocks of rows, with a proven bound on their error.

Reads float32 rows; returns centred, rounded rows (`Rounded`) and their products. Invariant: let a'
be the bfloat16 or float32 vector nearest to a - c, for any centre c. Then for rows a and b

    | |a - b| - |a' - b'| | <= error(a) + error(b)      triangle inequality, errors measured per row
    |a' - b'|^2 = |a'|^2 + |b'|^2 - 2 a'.b'             where the computed a'.b' is wrong by at most
    output_error * |a'.b'| + accumulation(D) * (|a'|^2 + |b'|^2)/2

So a search may use fast products and still be exact: it computes the canonical distance of every
pair that the bound cannot exclude. The centre changes no result; one near the rows makes the bound
tight, because rounding is relative to |a - c|.

Why bfloat16: with AVX512_BF16, one core multiplied blocks of 1,200-4,096 x 512 by 100-2,048 at
190-220 GFLOP/s, compared with 85-100 GFLOP/s in float32. Products run on the calling thread: two
threads on one product of this size were slower than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.extras import import_optional

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Precision = Literal["bfloat16", "float32"]

# Multiplies if it is installed; numpy's BLAS otherwise.
torch = import_optional("torch")

# oneDNN compiles a kernel for every new shape (0.6 ms, as long as the product itself) and keeps it
# (0.6 MB), so blocks are padded to a few shapes. Lists are small and multiplied often, so the steps
# for members are finer.
_MEMBER_STEPS = np.array([*range(32, 256, 32), *range(256, 512, 64), *range(512, 1025, 128)])
_QUERY_STEPS = np.array([32, 64, 96, 128, 192, 256, 384, 512, 640, 768, 896, 1024])

BFLOAT16_OUTPUT_ERROR = 2.0**-8 * 1.01
# `accumulation` covers norms and sums added in any order, so vectorising them is safe.
_REORDER = {"reassoc", "nsz", "contract"}


@dataclass(frozen=True)
class Rounded:
    """Rows minus a centre, rounded, with what the bound needs.

    Attributes:
        values: rounded rows, then rows of zeros: bits of bfloat16 as uint16, or float32, [>= R, D].
        sq_norms: float32 [R], squared norms of the rounded rows.
        errors: float32 [R], upper bounds of the norm of the rounding error.
    """

    values: NDArray[np.uint16] | Float32
    sq_norms: Float32
    errors: Float32


def accumulation(n_dims: int) -> float:
    """Return an upper bound of the relative error of a float32 sum of `n_dims` products, in any order.

    Args:
        n_dims: D.

    Returns:
        Multiple of (|a'|^2 + |b'|^2)/2.
    """
    return (n_dims + 64) * 2.0**-22


def padded_rows(n_rows: int, queries: bool = True) -> int:
    """Return how many rows to multiply for `n_rows`, so that products have few shapes.

    Args:
        n_rows: at least 0.
        queries: whether these are queries rather than members, whose steps are finer.
    """
    steps = _QUERY_STEPS if queries else _MEMBER_STEPS
    step = np.searchsorted(steps, n_rows)
    return int(steps[step]) if step < len(steps) else n_rows


def round_rows(
    rows_ND: Float32, index_R: Int64, centre_D: Float32, precision: Precision, queries: bool = False
) -> Rounded:
    """Gather rows, subtract the centre and round, in one pass.

    Args:
        rows_ND: float32 [N, D], contiguous; norms below 1e9.
        index_R: int64 [R].
        centre_D: float32 [D], any value.
        precision: of the rounded rows.
        queries: whether these are queries rather than members; changes the padding only.

    Returns:
        The rounded rows and their bounds.
    """
    n_rows = len(index_R)
    shape = (padded_rows(n_rows, queries), rows_ND.shape[1])
    sq_norms, errors = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    values = np.empty(shape, np.uint16 if precision == "bfloat16" else np.float32)
    values[n_rows:] = 0
    fill = _round_bfloat16 if precision == "bfloat16" else _round_float32
    fill(rows_ND, index_R, centre_D, values, sq_norms, errors)
    return Rounded(values, sq_norms, errors)


def multiply(a: Rounded, b: Rounded) -> NDArray[np.uint16] | Float32:
    """Return the products of all rows of `a` with all rows of `b`, on the calling thread.

    Args:
        a: Q rounded rows.
        b: M rounded rows, rounded the same way.

    Returns:
        float32, or bits of bfloat16, [>= Q, >= M]; the rest belongs to the padding.
    """
    if a.values.dtype == np.uint16:
        left, right = (torch.from_numpy(side.values).view(torch.bfloat16) for side in (a, b))
        # Callers widen the bits to float32 as they read them: a separate pass took a tenth of the
        # product's time.
        bits: NDArray[np.uint16] = torch.mm(left, right.T).view(torch.uint16).numpy()
        return bits
    return multiply_floats(a.values.view(np.float32), b.values.view(np.float32).T)


def multiply_floats(left_AB: Float32, right_BC: Float32) -> Float32:
    """Return the matrix product, float32 [A, C], on the calling thread (`parallel_ranges`)."""
    if torch is None:
        return left_AB @ right_BC
    product: Float32 = torch.mm(torch.from_numpy(left_AB), torch.from_numpy(right_BC)).numpy()
    return product


@lru_cache(maxsize=1)
def best_precision() -> Precision:
    """Return bfloat16 if the CPU multiplies it natively within the bound, else float32.

    Changes the speed of a search only, never its result.
    """
    if torch is None:
        return "float32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native and _keeps_bound("bfloat16") else "float32"


def _keeps_bound(precision: Precision) -> bool:
    # A library that truncated, or accumulated in bfloat16, would break the bound silently.
    rng = np.random.default_rng(0)
    rows_ND = rng.normal(size=(96, 700)).astype(np.float32) / np.float32(26)
    rounded = round_rows(rows_ND, np.arange(96), np.zeros(700, np.float32), precision)
    values, product = rounded.values, multiply(rounded, rounded)
    if precision == "bfloat16":
        values, product = ((bits.astype(np.uint32) << 16).view(np.float32) for bits in (values, product))
    truth = values.astype(np.float64) @ values.T
    sums = (rounded.sq_norms[:, None] + rounded.sq_norms[None, :]) / 2
    allowed = output_error(precision) * np.abs(truth) + accumulation(700) * sums
    return bool((np.abs(product - truth) <= allowed).all())


def output_error(precision: Precision) -> float:
    """Return the relative error of rounding a product to its output type.

    Args:
        precision: what the products are computed in.

    Returns:
        Multiple of |a'.b'|.
    """
    return BFLOAT16_OUTPUT_ERROR if precision == "bfloat16" else 0.0


@kernel(fastmath=_REORDER)
def _slack(sq_norm: float | np.float32, centre_norm: float) -> float:
    # x - c is itself rounded, by at most 2^-24 of |x| + |c| <= |x - c| + 2|c|; the last term covers
    # flushed denormals.
    slack: float = 2.0**-22 * (np.sqrt(sq_norm) + 2.0 * centre_norm) + 1e-30
    return slack


@kernel(fastmath=_REORDER)
def _round_bfloat16(
    rows_ND: Float32,
    index_R: Int64,
    centre_D: Float32,
    bits_RD: NDArray[np.uint16],
    sq_norms_R: Float32,
    errors_R: Float32,
) -> None:
    centre_norm = np.sqrt((centre_D * centre_D).sum())
    n_dims = rows_ND.shape[1]
    margin = 1.0 + n_dims * 2.0**-22
    for r in range(index_R.shape[0]):
        row_D, out_D = rows_ND[index_R[r]], bits_RD[r]
        sq_norm = np.float32(0.0)
        sq_error = np.float32(0.0)
        for d in range(n_dims):
            value = row_D[d] - centre_D[d]
            bits = np.float32(value).view(np.uint32)
            nearest_even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            upper = np.uint32(bits + nearest_even) >> np.uint32(16)
            back = np.uint32(upper << np.uint32(16)).view(np.float32)
            sq_norm += back * back
            sq_error += (value - back) * (value - back)
            out_D[d] = np.uint16(upper)
        sq_norms_R[r] = sq_norm
        errors_R[r] = np.sqrt(sq_error) * margin + _slack(sq_norm, centre_norm)


@kernel(fastmath=_REORDER)
def _round_float32(
    rows_ND: Float32,
    index_R: Int64,
    centre_D: Float32,
    values_RD: Float32,
    sq_norms_R: Float32,
    errors_R: Float32,
) -> None:
    centre_norm = np.sqrt((centre_D * centre_D).sum())
    for r in range(index_R.shape[0]):
        row_D, out_D = rows_ND[index_R[r]], values_RD[r]
        sq_norm = np.float32(0.0)
        for d in range(rows_ND.shape[1]):
            value = row_D[d] - centre_D[d]
            sq_norm += value * value
            out_D[d] = value
        sq_norms_R[r] = sq_norm
        errors_R[r] = _slack(sq_norm, centre_norm)
