"""Which lists each row visits, and how many it must visit for a target recall.

Reads rows and a trained quantiser; returns list numbers. Invariant: a row's probes depend on that
row and the centroids alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.projections import ProjectedRows
from d2prune.knn.quantiser import Quantiser
from d2prune.knn.recall import choose_nprobe

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_FIRST_PROBES = 64


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
    quantiser: Quantiser, rows_SD: Float32, true_lists_SK: Int64, target_recall: float, threads: int
) -> int:
    """Return the smallest nprobe that reaches the target on a sample with confidence, at most all lists.

    Args:
        quantiser: L lists.
        rows_SD: float32 [S, D], the sample.
        true_lists_SK: int64 [S, K], home list of each true neighbour; -1 where there is none.
        target_recall: in (0, 1].
        threads: workers; changes speed only.
    """
    nlist = len(quantiser.centroids)
    n_probes, missed = min(_FIRST_PROBES, nlist), 0
    while n_probes < nlist:
        probed = quantiser.find_lists(rows_SD, n_probes, threads)
        nprobe = choose_nprobe(true_lists_SK, probed.astype(np.int64), target_recall)
        if nprobe is not None:
            # Fewer would be searched as in the step that missed, with fewer candidates.
            return max(nprobe, missed + 1)
        n_probes, missed = min(4 * n_probes, nlist), n_probes
    return nlist
