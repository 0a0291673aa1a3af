"""Which function searches a block: the GPU's where there is one, it finds the same and it is faster; else the CPU's.

Reads and writes nothing. Invariant: every choice gives the same bits (`search.search_block`), so it is not part of any
fingerprint. A GPU that is handed to no worker (Ray hides it from those that asked for none) is not used.
"""

import logging
import time
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.graph.images import Projection
from pipeline.graph.lists import BlockSearch, search_on_cpu
from pipeline.graph.search import TopK

log = logging.getLogger(__name__)

# A block as a pool of some millions has them: a list of members, and all who visit it.
_MEMBERS, _QUERIES, _N_BEST, _TRIES = 512, 16_384, 6, 2


@lru_cache(maxsize=4)
def block_search(n_dims: int) -> BlockSearch:
    """Choose for this process; measured once.

    Args:
        n_dims: D of the rows.
    """
    if not torch.cuda.is_available():
        return search_on_cpu
    # Imported late: workers without a GPU need not compile it.
    from pipeline.graph.device_search import DeviceSearch

    return faster(DeviceSearch("cuda"), n_dims)


def projection_for(rows_ND: NDArray[np.float32], n_images: int, n_pairs: int) -> Projection | None:
    """Do what `Projection.fit` does where the CPU searches; a GPU has no use for images."""
    if block_search(rows_ND.shape[1]) is not search_on_cpu:
        return None
    return Projection.fit(rows_ND, n_images, n_pairs)


def faster(candidate: BlockSearch, n_dims: int, n_queries: int = _QUERIES) -> BlockSearch:
    """Return `candidate` if it finds what the CPU finds, in less time; else `search_on_cpu`.

    Args:
        candidate: searches a block.
        n_dims: D.
        n_queries: of the block that both are tried on.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_queries, n_dims)) + 2 * rng.normal(size=n_dims)
    queries_QD = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    members_MD, positions_M = queries_QD[:_MEMBERS].copy(), np.arange(min(_MEMBERS, n_queries))
    centre_D = members_MD.mean(axis=0)
    found, seconds = [], []
    for search in (search_on_cpu, candidate):
        best = np.inf
        for _ in range(_TRIES):  # the first compiles and uploads
            top = TopK.empty(n_queries, _N_BEST)
            start = time.perf_counter()
            try:
                search(queries_QD, np.arange(n_queries), members_MD, positions_M, centre_D, top)
            except (RuntimeError, TypeError) as error:  # a driver, a library or a card that cannot
                log.warning("graph: blocks are searched on the CPU: the GPU fails (%s)", error)
                return search_on_cpu
            best = min(best, time.perf_counter() - start)
        found.append((top.sq_distances.tobytes(), top.positions.tobytes()))
        seconds.append(best)
    if found[0] != found[1]:
        log.warning("graph: blocks are searched on the CPU: the GPU's products do not keep their error bound")
        return search_on_cpu
    log.info("graph: a block takes %.1f ms on the CPU, %.1f ms on the GPU", *(1000 * s for s in seconds))
    return candidate if seconds[1] < seconds[0] else search_on_cpu
