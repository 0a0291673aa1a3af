"""Baselines that order a pool by one number per sample.

The package docstring lists their invariants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2prune.arguments import as_labels, as_rows
from d2prune.baselines.order import Int64, check_score, sort_positions
from d2prune.compiled.decorator import kernel
from d2prune.d2 import budget
from d2prune.d2.api import compute_scores
from d2prune.d2.gamma import resolve_gammas
from d2prune.errors import ArgumentError
from d2prune.knn.csr import Graph
from d2prune.knn.features import unit_rows

DEFAULT_STRATA = 50


def random(n: int, seed: int = 0) -> Int64:
    """Order n samples at random.

    Many methods fail to beat this baseline when more than 70 % is pruned.

    Args:
        n: number of samples, at least 1.
        seed: of the permutation.

    Returns:
        int64 [n].

    Raises:
        ArgumentError: n < 1.
    """
    if n < 1:
        raise ArgumentError(f"n is {n} samples, expected at least 1")
    return np.random.default_rng(seed).permutation(n)


def top_score(score: ArrayLike) -> Int64:
    """Order samples by falling score alone.

    With CLIP scores this is DataComp's CLIP filter (Gadre et al., arXiv 2304.14108, section 3.4).

    Args:
        score: finite numbers [N], higher = more wanted.

    Returns:
        int64 [N].

    Raises:
        ArgumentError: the score is not finite numbers [N].
    """
    return sort_positions(-check_score(score))


def forward(graph: Graph, difficulty: ArrayLike, gamma_forward: float | str = 1.0) -> Int64:
    """Order samples by falling forward score, without D2's reverse pass.

    "Graph score" in the ablations of arXiv 2310.07931. It favours dense regions. The script released
    with the paper selects almost the same samples (docs/algorithm.md).

    Args:
        graph: over N nodes.
        difficulty: real numbers [N], 0 <= difficulty < 2**22.
        gamma_forward: decay of the forward messages, as for `selection_scores`.

    Returns:
        int64 [N].

    Raises:
        ArgumentError: as for `selection_scores`.
    """
    graph.validate()
    gamma, _ = resolve_gammas(gamma_forward, 0.0, graph.sq_distances, "sample")
    return budget.ranking(compute_scores(graph, difficulty, (gamma, gamma), None, keep_forward=True)[0])


def moderate(embeddings: NDArray[Any], labels: ArrayLike | None = None) -> Int64:
    """Order samples by how close their distance to the class centre is to the class median.

    Prefers samples that are neither typical nor outliers. Xia et al., "Moderate Coreset", ICLR 2023.
    Their share per class is available as `order.first(..., groups=labels)`.

    Args:
        embeddings: floats [N, D]; rows are normalised.
        labels: [N]; None: one class.

    Returns:
        int64 [N].

    Raises:
        ArgumentError: a row cannot be normalised, or labels has another length.
    """
    rows_ND = unit_rows(as_rows(embeddings))
    class_N = np.zeros(len(rows_ND), np.int64)
    if labels is not None:
        class_N = as_labels(labels, "labels", len(rows_ND))
    distance_N = _centre_distances(rows_ND, class_N, int(class_N.max(initial=0)) + 1)
    for label in range(int(class_N.max(initial=0)) + 1):
        members = class_N == label
        distance_N[members] = abs(distance_N[members] - np.median(distance_N[members]))
    return sort_positions(distance_N)


def ccs(score: ArrayLike, drop_fraction: float = 0.0, n_strata: int = DEFAULT_STRATA, seed: int = 0) -> Int64:
    """Order samples by coverage-centric selection: an equal number from each stratum of the score.

    Zheng et al., "Coverage-centric Coreset Selection", ICLR 2023, arXiv 2210.15809, algorithm 1. The
    hardest samples are dropped first. A stratum with too few members gives all of them, and the
    larger strata share the rest. Within a stratum samples are chosen at random. Taking one sample
    from each stratum in turn, largest stratum first, gives the numbers of the paper at every size,
    so coresets are nested.

    Args:
        score: finite numbers [N], higher = harder (such as `scores.aum`).
        drop_fraction: beta, the share with the highest score to drop (likely mislabelled).
        n_strata: number of strata, of equal width between the lowest and the highest score left.
        seed: of the random choice within strata.

    Returns:
        int64 [N - floor(beta N)].

    Raises:
        ArgumentError: the score is not finite numbers [N], or a parameter is out of range.
    """
    score_N = check_score(score)
    if n_strata < 1:
        raise ArgumentError(f"n_strata is {n_strata}, expected at least 1")
    left_P = np.flatnonzero(~budget.drop_mask(-score_N, drop_fraction))
    stratum_P = strata(score_N[left_P], n_strata)
    shuffle_P = np.random.default_rng(seed).permutation(len(left_P))
    by_stratum = np.lexsort((shuffle_P, stratum_P))
    sizes = np.bincount(stratum_P, minlength=n_strata)
    turn_P = np.empty(len(left_P), np.int64)
    turn_P[by_stratum] = np.arange(len(left_P)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return left_P[np.lexsort((-stratum_P, -sizes[stratum_P], turn_P))]


def strata(score_P: NDArray[np.float64], n_strata: int) -> Int64:
    """Return the stratum of each score, 0 the lowest; equal scores are all in stratum 0."""
    low, high = score_P.min(), score_P.max()
    if low == high:
        return np.zeros(len(score_P), np.int64)
    stratum_P: Int64 = ((score_P - low) / (high - low) * n_strata).astype(np.int64)
    return np.minimum(stratum_P, n_strata - 1)


@kernel
def _centre_distances(rows_ND: NDArray[np.float32], class_N: Int64, n_classes: int) -> NDArray[np.float64]:
    """Compute each row's Euclidean distance to the mean of its class, in float64, summed in order."""
    n, n_dims = rows_ND.shape
    centres, counts = np.zeros((n_classes, n_dims)), np.zeros(n_classes)
    for i in range(n):
        counts[class_N[i]] += 1.0
        for d in range(n_dims):
            centres[class_N[i], d] += np.float64(rows_ND[i, d])
    out = np.empty(n)
    for i in range(n):
        square = 0.0
        for d in range(n_dims):
            difference = np.float64(rows_ND[i, d]) - centres[class_N[i], d] / counts[class_N[i]]
            square += difference * difference
        out[i] = np.sqrt(square)
    return out
