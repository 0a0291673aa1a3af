"""Which lists each row visits, and how many it must visit for a target recall.

Reads rows and a trained quantiser; returns list numbers. Two rows *meet*, and may become
neighbours, if one visits the other's home list. Invariant: a row's probes depend on that row and the
centroids alone, so whether two rows meet depends on these two alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.list_tree import FIRST_STEP
from d2prune.knn.projections import ProjectedRows
from d2prune.knn.quantiser import Quantiser
from d2prune.knn.recall import NEVER, choose_nprobe
from d2prune.knn.top_k import NO_POSITION

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def find_probes(
    quantiser: Quantiser, rows_RD: Float32, nprobe: int, threads: int, projected: ProjectedRows | None = None
) -> Int32:
    """Return the lists each row visits, home first.

    Args:
        quantiser: L lists.
        rows_RD: float32 [R, D], contiguous.
        nprobe: P <= L.
        threads: workers; changes speed only.
        projected: as in `Quantiser.nearest`.

    Returns:
        int32 [R, P]. Nearest first if P < L; if P = L, the home list and then the others in no useful
        order.
    """
    nlist = len(quantiser.centroids)
    if nprobe < nlist:
        return quantiser.find_lists(rows_RD, nprobe, threads, projected)
    home_R = quantiser.find_lists(rows_RD, 1, threads, projected)
    return ((home_R + np.arange(nlist)) % nlist).astype(np.int32)


def tune_nprobe(
    quantiser: Quantiser,
    rows_SD: Float32,
    true_SK: Int64,
    read_rows: Callable[[Int64], Float32],
    target_recall: float,
    threads: int,
) -> int:
    """Return the smallest nprobe that reaches the target on a sample with confidence, at most all lists.

    Args:
        quantiser: L lists.
        rows_SD: float32 [S, D], the sample.
        true_SK: int64 [S, K], positions of the true neighbours; NO_POSITION where there is none.
        read_rows: returns the rows at some positions.
        target_recall: in (0, 1].
        threads: workers; changes speed only.
    """
    nlist = len(quantiser.centroids)
    exists_SK = true_SK != NO_POSITION
    positions_T, number_P = np.unique(true_SK[exists_SK], return_inverse=True)
    rows_TD, sampled_P = read_rows(positions_T), np.nonzero(exists_SK)[0]
    n_probes, missed = min(FIRST_STEP, nlist), 0
    while n_probes < nlist:
        own_SV, true_TV = (quantiser.find_lists(rows, n_probes, threads) for rows in (rows_SD, rows_TD))
        meets_SK = np.full(true_SK.shape, NEVER)
        meets_SK[exists_SK] = np.minimum(
            _find_visit(own_SV[sampled_P], true_TV[number_P, 0]),
            _find_visit(true_TV[number_P], own_SV[sampled_P, 0]),
        )
        nprobe = choose_nprobe(meets_SK, exists_SK, n_probes, target_recall)
        if nprobe is not None:
            # Fewer would be searched as in the step that missed, with fewer candidates.
            return max(nprobe, missed + 1)
        n_probes, missed = min(2 * n_probes, nlist), n_probes
    return nlist


def _find_visit(visited_PV: Int32, home_P: Int32) -> Int64:
    """Return how many lists each row visits until it is at a home list, int64 [P]; NEVER if it is not."""
    is_home_PV = visited_PV == home_P[:, None]
    return np.where(is_home_PV.any(axis=1), is_home_PV.argmax(axis=1) + 1, NEVER)
