"""Gamma, the decay of messages with distance: a number, or a multiple of the graph's own scale.

Distances have no absolute scale: at gamma 1 a neighbour at cosine 0.84 passes on 73 % of its score.
So the default is relative: gamma = c / median, where the median is that of the graph's squared edge
distances. How c was chosen: docs/algorithm.md, "The scale of gamma".
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d2prune.arguments import as_number, describe_value
from d2prune.errors import ArgumentError

AUTO = "auto"
FORWARD_MULTIPLE, REVERSE_MULTIPLE = 8.0, 10.0
"""Multiples of `auto` for scores of single samples: chosen on benchmarks/icons' split `choosing`."""
TRAINING_MULTIPLES = (0.3, 1.0)
"""Forward and reverse, for labelled data: the best of benchmarks/coreset's split `choose`."""
_PER_MEDIAN = "/median"
_NUMBER = re.compile(r"\+?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
EXPECTED = "a finite number >= 0, `auto`, or a multiple such as `4/median`"

DifficultyKind = Literal["sample", "training"]
"""What a difficulty score judges.

`sample`: each sample by itself, such as a CLIP score; only near-copies exchange messages.
`training`: a noisy trace of training that neighbours share, such as AUM or forgetting; both passes
reach over a wide neighbourhood, since by itself the hardest sample is often a mislabelled one.
"""


def check_gamma(name: str, gamma: Any, multiple: float) -> float | str:
    """Check a gamma, which is a number, `auto` or `C/median`.

    Args:
        name: of the argument or option, for the error message.
        gamma: the value; a string may also hold a number.
        multiple: what `auto` stands for.

    Returns:
        The number, or the multiple as `C/median`.

    Raises:
        ArgumentError: the value is none of these.
    """
    if not isinstance(gamma, str):
        return as_number(gamma, name, EXPECTED, lambda value: 0.0 <= value < np.inf)
    if gamma == AUTO:
        return f"{multiple:g}{_PER_MEDIAN}"
    text = gamma.strip()
    digits = text.removesuffix(_PER_MEDIAN)
    number = float(digits) if _NUMBER.fullmatch(digits) else np.inf
    if number == np.inf:
        raise ArgumentError(f"{name}: found {describe_value(gamma)}; expected {EXPECTED}")
    return f"{number!r}".removesuffix(".0") + _PER_MEDIAN if text.endswith(_PER_MEDIAN) else number


def is_relative(gamma: float | str) -> bool:
    """Whether a gamma from `check_gamma` needs the graph's median distance."""
    return isinstance(gamma, str)


def resolve_gamma(gamma: float | str, median: float | None) -> float:
    """Return a gamma from `check_gamma` as a number.

    Args:
        gamma: the gamma.
        median: from `median_sq_distance`. None: no edge has a length, so every weight is 1 whatever
            gamma is, and a relative gamma is 0.
    """
    if not isinstance(gamma, str):
        return gamma
    if median is None:
        return 0.0
    # Of an infinite gamma, the product with a distance of 0 would be NaN.
    return min(float(gamma.removesuffix(_PER_MEDIAN)) / median, float(np.finfo(np.float64).max))


def describe_gamma(gamma: float | str, value: float) -> str:
    """Return a gamma from `check_gamma` as text, with the number it stands for: `6.14 (5/median)`."""
    return f"{value:.4g} ({gamma})" if isinstance(gamma, str) else f"{gamma:g}"


def resolve_gammas(
    gamma_forward: Any, gamma_reverse: Any, sq_distances_E: NDArray[np.float32], kind: DifficultyKind
) -> tuple[float, float]:
    """Return both gammas as numbers, for a graph in memory.

    Args:
        gamma_forward: as for `check_gamma`. `auto` depends on the kind of the difficulty:
            FORWARD_MULTIPLE for `sample`, the first of TRAINING_MULTIPLES for `training`.
        gamma_reverse: likewise; REVERSE_MULTIPLE or the second.
        sq_distances_E: squared distances of the graph's edges.
        kind: of the difficulty.

    Raises:
        ArgumentError: a gamma or the kind is invalid.
    """
    if not isinstance(kind, str) or kind not in ("sample", "training"):
        raise ArgumentError(f"difficulty_kind: found {describe_value(kind)}; expected 'sample' or 'training'")
    forward, reverse = TRAINING_MULTIPLES if kind == "training" else (FORWARD_MULTIPLE, REVERSE_MULTIPLE)
    gammas = [
        check_gamma("gamma_forward", gamma_forward, forward),
        check_gamma("gamma_reverse", gamma_reverse, reverse),
    ]
    median = median_sq_distance(sq_distances_E) if any(map(is_relative, gammas)) else None
    return resolve_gamma(gammas[0], median), resolve_gamma(gammas[1], median)


def median_sq_distance(sq_distances_E: NDArray[np.float32]) -> float | None:
    """Return the median squared distance of a graph's edges: the scale of relative gammas.

    Of an even number of edges it is the lower of the two in the middle, so it is the distance of an
    edge, and the same whether an edge is counted once or in both directions. If it is 0, because
    most edges join identical samples, it is the median of the edges longer than 0.

    Args:
        sq_distances_E: squared distances, float32 [E].

    Returns:
        The median; None if no edge is longer than 0.
    """
    zeros = len(sq_distances_E) - int(np.count_nonzero(sq_distances_E))
    rank = median_rank(len(sq_distances_E), zeros)
    return None if rank is None else float(np.partition(sq_distances_E, rank)[rank])


def median_rank(n_edges: int, n_zeros: int) -> int | None:
    """Return the rank of `median_sq_distance` in ascending order, from 0; None if there is none."""
    if n_edges == n_zeros:
        return None
    rank = (n_edges - 1) // 2
    return rank if rank >= n_zeros else n_zeros + (n_edges - n_zeros - 1) // 2
