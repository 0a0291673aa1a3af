"""Which samples the galleries show: pure functions of arrays.

Every choice is seeded, or an order whose ties are broken by position, so the same run shows the same
samples. N rows of the random sample or the survey.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray


def spread_over_clusters(
    candidates: NDArray[np.int64], label_N: NDArray[np.int64], size: int, seed: int
) -> NDArray[np.int64]:
    """Choose at most `size` candidates at random, taking one from each cluster in turn.

    Args:
        candidates: rows of the random sample.
        label_N: int64 [N], the cluster of every row.
        size: how many to choose.
        seed: seed of the choice.
    """
    shuffled = np.random.default_rng(seed).permutation(candidates)
    seen: Counter[int] = Counter()
    turns = []
    for row in shuffled.tolist():
        label = int(label_N[row])
        turns.append(seen[label])
        seen[label] += 1
    return np.asarray(shuffled[np.argsort(turns, kind="stable")][:size], dtype=np.int64)


def dense_and_sparse(
    support_N: NDArray[np.float64], kept_N: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kept rows among the densest and the sparsest tenth of the sample.

    If a tenth holds no kept rows, the densest or sparsest tenth of the kept rows instead.

    Args:
        support_N: what neighbours add to a score in the forward pass: high in dense regions.
        kept_N: bool [N].
    """
    rows = np.flatnonzero(kept_N & np.isfinite(support_N))
    if not len(rows):
        return rows, rows
    low, high = np.nanquantile(support_N, [0.1, 0.9])
    support = support_N[rows]
    dense, sparse = rows[support >= high], rows[support <= low]
    order = rows[np.argsort(support, kind="stable")]
    tenth = max(1, len(rows) // 10)
    return (dense if len(dense) else order[-tenth:]), (sparse if len(sparse) else order[:tenth])


def best_per_suppressor(
    candidate_N: NDArray[np.bool_], score_N: NDArray[np.float64], suppressor_N: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """Choose at most `size` candidates by falling score; each suppressor once if that suffices.

    Args:
        candidate_N: bool [N].
        score_N: float64 [N].
        suppressor_N: int64 [N], canonical position of the neighbour that suppressed each most.
        size: how many to choose.

    Returns:
        int64, rows.
    """
    rows = np.flatnonzero(candidate_N)
    rows = rows[np.lexsort((rows, -score_N[rows]))]
    _, first = np.unique(suppressor_N[rows], return_index=True)
    once = np.sort(first)
    again = np.setdiff1d(np.arange(len(rows)), once)
    return np.asarray(rows[np.concatenate([once, again]).astype(np.int64)][:size], dtype=np.int64)


def closest(margin_N: NDArray[np.float64], kept_N: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """The last rows kept, then the first ones dropped, each at most `size`; ties to the lower row.

    Args:
        margin_N: float64 [N], how far each is above the threshold that applies to it; nan: not ranked.
        kept_N: bool [N].
        size: of each kind.

    Returns:
        int64, rows by falling margin.
    """
    rows = np.flatnonzero(np.isfinite(margin_N))
    kept, dropped = rows[kept_N[rows]], rows[~kept_N[rows]]
    last = kept[np.argsort(margin_N[kept], kind="stable")[:size]][::-1]
    first = dropped[np.argsort(-margin_N[dropped], kind="stable")[:size]]
    return np.concatenate([last, first]).astype(np.int64)
