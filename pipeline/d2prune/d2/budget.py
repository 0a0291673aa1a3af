"""Budgets: how many samples to keep, and which, given their selection scores t.

A coreset is always the m highest t, ties to the lower canonical position, in the whole pool or in
each group; so the coresets of one run are nested. When t is stored in parts, the m-th highest is
found by radix select: a few rounds of small histograms over int64, exact, without a global sort.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_finite_scores, as_labels, as_number
from d2prune.d2.fixed_point import to_signed_fixed
from d2prune.errors import ArgumentError

HISTOGRAM_BITS = 16
_KEY_BITS = 64


@dataclass(frozen=True)
class Threshold:
    """Exact selection threshold.

    Keeps every t > `score` and, in canonical order, the first `ties` of t == `score`.
    """

    score: int
    ties: int


def size_of_fraction(n: int, fraction: float) -> int:
    """Return floor(n * fraction), at least 1, for n >= 1.

    The fraction is read as the decimal number it prints as: 0.3 of 10 is 3, although the double 0.3
    is below 3/10.

    Raises:
        ArgumentError: the fraction is not in (0, 1].
    """
    share = as_number(fraction, "fraction", "0 < fraction <= 1", lambda value: 0 < value <= 1)
    return min(n, max(1, math.floor(n * Fraction(repr(share)))))


def drop_mask(score: ArrayLike, drop_fraction: float) -> NDArray[np.bool_]:
    """Choose the samples to drop before the graph is built: those with the lowest `score`.

    The paper drops a share beta by AUM.

    Args:
        score: [N] finite numbers.
        drop_fraction: share to drop, 0 <= drop_fraction < 1: floor(N * drop_fraction) samples. Of
            equal scores, later positions are dropped first.

    Returns:
        bool [N], True: dropped.

    Raises:
        ArgumentError: a non-finite score, or a fraction out of range.
    """
    expected = "0 <= drop_fraction < 1"
    share = as_number(drop_fraction, "drop_fraction", expected, lambda value: 0 <= value < 1)
    values = as_finite_scores(score, "drop_score").astype(np.float64)
    n = len(values)
    drop = np.zeros(n, np.bool_)
    n_drop = math.floor(n * Fraction(repr(share)))
    # By rising score, of equal scores the later position first.
    drop[(n - 1 - np.argsort(values[::-1], kind="stable"))[:n_drop]] = True
    return drop


def quotas(group_sizes: Sequence[int], m: int) -> list[int]:
    """Divide m among groups in proportion to their sizes, by largest remainder; the sum is exactly m.

    Args:
        group_sizes: members of each group, >= 0.
        m: total, 0 <= m <= sum(group_sizes).

    Returns:
        One quota per group, at most its size; of equal remainders, the earlier group is rounded up.

    Raises:
        ArgumentError: m is negative or larger than the sum of the sizes.
    """
    total = sum(group_sizes)
    if not 0 <= m <= total:
        raise ArgumentError(f"size is {m}, expected 0 <= size <= {total}, the total of all groups")
    if total == 0:
        return [0] * len(group_sizes)
    shares = [size * m // total for size in group_sizes]
    remainders = [size * m % total for size in group_sizes]
    by_remainder = sorted(range(len(shares)), key=lambda g: (-remainders[g], g))
    for g in by_remainder[: m - sum(shares)]:
        shares[g] += 1
    return shares


def ranking(t: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pick order: indices by falling t, ties to the lower index; int64 [N]."""
    # ~t reverses the order and cannot overflow.
    return np.argsort(~t, kind="stable")


def top(t: NDArray[np.int64], m: int, groups: ArrayLike | None = None) -> NDArray[np.int64]:
    """Return the coreset of size m, in pick order.

    Args:
        t: int64 [N].
        m: 0 <= m <= N.
        groups: [N] labels (`as_labels`); each group keeps its share (`quotas`) of its highest t.

    Returns:
        int64 [m] indices, by falling t over all groups.

    Raises:
        ArgumentError: m is out of range, or groups has another length.
    """
    n = len(t)
    if not 0 <= m <= n:
        raise ArgumentError(f"size is {m}, expected 0 <= size <= {n}")
    order = ranking(t)
    if groups is None:
        return order[:m]
    group = as_labels(groups, "groups", n)
    sizes = np.bincount(group)
    share = np.asarray(quotas(sizes.tolist(), m), np.int64)
    # Rank of each node in its group: sort by (group, pick order), count from the group's start.
    by_group = order[np.argsort(group[order], kind="stable")]
    rank = np.empty(n, np.int64)
    rank[by_group] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank[order] < share[group[order]]]


def threshold_of_score(min_score: float) -> Threshold:
    """Return the threshold that keeps every t >= min_score.

    Args:
        min_score: in units of the difficulty; may be negative.

    Raises:
        ArgumentError: min_score is not finite, or beyond +-2**22.
    """
    return Threshold(score=int(to_signed_fixed([min_score])[0]) - 1, ties=0)


def histogram(
    t: NDArray[np.int64], prefix: int, prefix_bits: int, bits: int = HISTOGRAM_BITS
) -> NDArray[np.int64]:
    """Compute one part's contribution to one round of `select_threshold`.

    Args:
        t: int64 [n], the part's scores.
        prefix: the upper `prefix_bits` of the threshold's key, found in earlier rounds. The key of t
            is t + 2**63 as uint64, which sorts like t.
        prefix_bits: number of bits found so far.
        bits: number of bits to count in this round.

    Returns:
        int64 [2**bits]: for each value of the next bits, the number of t whose key starts with
        `prefix` and continues with that value.
    """
    key = t.view(np.uint64) ^ np.uint64(1 << 63)
    if prefix_bits:
        key = key[key >> np.uint64(_KEY_BITS - prefix_bits) == np.uint64(prefix)]
    digit = (key >> np.uint64(_KEY_BITS - prefix_bits - bits)) & np.uint64((1 << bits) - 1)
    return np.bincount(digit.astype(np.int64), minlength=1 << bits)


def select_threshold(
    total_histogram: Callable[[int, int, int], NDArray[np.int64]], m: int, bits: int = HISTOGRAM_BITS
) -> Threshold:
    """Find the exact threshold of the m highest t over all parts, in 64 / bits rounds.

    Args:
        total_histogram: (prefix, prefix_bits, bits) -> sum of all parts' `histogram`.
        m: 1 <= m <= number of scores in all parts.
        bits: a divisor of 64; each part returns 2**bits counters per round.

    Raises:
        ArgumentError: m is less than 1 or more than the number of scores.
    """
    prefix, wanted = 0, m
    counts = np.zeros(1 << bits, np.int64)
    digit = 0
    for known in range(0, _KEY_BITS, bits):
        counts = total_histogram(prefix, known, bits)
        at_least = np.cumsum(counts[::-1])[::-1]
        if not 1 <= wanted <= at_least[0]:
            raise ArgumentError(
                f"size is {m}, expected 1 <= size <= {int(at_least[0])}, the number of scores"
            )
        digit = int(np.flatnonzero(at_least >= wanted)[-1])
        wanted -= int(at_least[digit] - counts[digit])
        prefix = (prefix << bits) | digit
    return Threshold(score=prefix - (1 << 63), ties=wanted)


def kept_in_part(t: NDArray[np.int64], threshold: Threshold, ties_before: int) -> NDArray[np.bool_]:
    """Return which of a part's nodes are kept.

    Args:
        t: int64 [n], in canonical order; the parts are contiguous runs of canonical positions.
        threshold: from `select_threshold`.
        ties_before: number of t equal to the threshold in the parts before this one (sum of
            `count_ties`).

    Returns:
        bool [n].
    """
    tied = t == threshold.score
    rank = ties_before + np.cumsum(tied) - tied
    kept: NDArray[np.bool_] = (t > threshold.score) | (tied & (rank < threshold.ties))
    return kept


def count_ties(t: NDArray[np.int64], threshold: Threshold) -> int:
    """Return how many of a part's t equal the threshold."""
    return int(np.count_nonzero(t == threshold.score))
