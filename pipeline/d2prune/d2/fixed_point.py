"""The arithmetic of the selection: int64 fixed point, and an `exp` that is the same everywhere.

Why fixed point: a floating-point sum depends on its order, an integer sum does not. Node values and
messages are int64 in units of 2**-40, so the result is the same for any number of partitions and
any order of arrival.

Why an own `exp`: math libraries differ in the last bit. Here every step is one IEEE 754 double
operation (+, -, *, rounding to an integer) in a fixed order. Numba without `fastmath` emits them as
written: LLVM may neither reassociate them nor contract a multiply and an add into an FMA.
tests/d2/test_fixed_point.py compares with plain Python floats, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_scores
from d2prune.compiled.decorator import kernel
from d2prune.errors import ArgumentError

FRACTION_BITS = 40
SCALE = float(1 << FRACTION_BITS)
# Node values stay within +-LIMIT (2**22 in units of the difficulty). A value in range minus a message
# in range cannot wrap in int64, so one comparison after each operation detects overflow exactly.
LIMIT = 1 << 62

_INV_LN2 = 1.4426950408889634
# ln 2 in two parts (fdlibm's split): the high part has 21 trailing zero bits, so k * _LN2_HI is
# exact for k < 2**21.
_LN2_HI = 6.93147180369123816490e-01
_LN2_LO = 1.90821492927058770002e-10
# From here on exp(-x) < 2**-64, and a message of at most LIMIT * 2**-64 < 1/2 rounds to zero. So a
# weight of 0 is no approximation: every message is what the exact weight would give.
_ZERO_WEIGHT_FROM = 45.0

_C2, _C3, _C4, _C5, _C6, _C7 = 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040
_C8, _C9, _C10, _C11, _C12, _C13 = (
    1 / 40320,
    1 / 362880,
    1 / 3628800,
    1 / 39916800,
    1 / 479001600,
    1 / 6227020800,
)


def resolve_auto_offset(lowest: float, highest: float) -> float:
    """Return what `offset: auto` adds to the scores of a pool, given its lowest and highest.

    The lowest becomes 0. If all are equal they become 1: at 0 no sample would send a message, and
    positions alone would decide.
    """
    return (1.0 if lowest == highest else 0.0) - lowest


@kernel(inline="always")
def exp_neg(x: float) -> float:
    """Return exp(-x) as float64, for x >= 0: within 1 ulp (docs/algorithm.md), and 0.0 for x > 45.

    With x = k ln 2 + r and |r| <= ln(2)/2, exp(-r) is its Taylor polynomial of degree 13 (truncation
    < 5e-18), evaluated as two chains, even and odd powers, which the CPU can overlap. exp(-0.0) and
    exp(0.0) are exactly 1.
    """
    if not x <= _ZERO_WEIGHT_FROM:
        return 0.0
    k = np.rint(x * _INV_LN2)
    r = (x - k * _LN2_HI) - k * _LN2_LO
    z = r * r
    even = _C2 + z * (_C4 + z * (_C6 + z * (_C8 + z * (_C10 + z * _C12))))
    odd = _C3 + z * (_C5 + z * (_C7 + z * (_C9 + z * (_C11 + z * _C13))))
    # 1 - r + r^2/2 - r^3/6 + ... : the last subtraction is the only rounding that matters.
    p = 1.0 - (r - z * (even - r * odd))
    # Times 2**-k, exact: k <= 65, far from subnormals.
    return p * np.int64((1023 - np.int64(k)) << 52).view(np.float64)  # type: ignore[no-any-return]


@kernel(inline="always")
def message(value: int, gamma: float, sq_distance: float) -> int:
    """Return the message along an edge: rint(exp(-gamma * sq_distance) * value).

    For 0 <= value <= LIMIT. A function of its arguments alone, the same on every machine: int64 to
    float64 (round to nearest even), one multiplication, one rounding to the nearest integer (ties
    to even). The conversion is exact below 2**53 (8,192 in units of the difficulty); above, it keeps
    53 bits, a relative error of at most 2**-53.
    """
    amount = exp_neg(gamma * np.float64(sq_distance)) * np.float64(value)
    return np.int64(np.rint(amount))  # type: ignore[return-value]


def to_fixed(difficulty: ArrayLike) -> NDArray[np.int64]:
    """Convert difficulty scores to fixed point: rint(s * 2**40), int64 [N].

    Args:
        difficulty: [N] real numbers, >= 0 and < 2**22.

    Raises:
        ArgumentError: a score is negative, not finite or too large; the message names the first one.
    """
    s_N = as_scores(difficulty, "difficulty").astype(np.float64)
    limit = LIMIT / SCALE
    good = (s_N >= 0) & (s_N < limit)  # a NaN fails both
    if not good.all():
        i = int(np.argmin(good))
        raise ArgumentError(
            f"difficulty[{i}] is {s_N[i]}, expected a finite number, 0 <= score < {limit:.0f}"
            "; shift the scores by their minimum, or scale them"
        )
    # In place, because a partition may hold many millions of scores.
    del good
    np.multiply(s_N, SCALE, out=s_N)
    np.rint(s_N, out=s_N)
    return s_N.astype(np.int64)


def to_signed_fixed(score: ArrayLike) -> NDArray[np.int64]:
    """Convert scores to fixed point, as `to_fixed`; they may be negative.

    Raises:
        ArgumentError: a score is not finite, or beyond +-2**22.
    """
    score_N = np.asarray(score, np.float64)
    return np.where(score_N < 0, -1, 1) * to_fixed(np.abs(score_N))


def to_float(fixed: NDArray[np.int64]) -> NDArray[Any]:
    """Convert fixed point back to units of the difficulty, float64 [N]; 53 bits are kept."""
    return fixed.astype(np.float64) / SCALE
