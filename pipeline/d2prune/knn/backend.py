"""Which function searches lists: the GPU's where there is one, it finds the same and it is faster; else the CPU's.

Reads and writes nothing. Invariant: every choice gives the same bits (`lists.search_lists`), so it
is not part of any fingerprint. A GPU that is handed to no worker (Ray hides it from those that
asked for none) is not used.
"""

import logging
import time
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.knn.block_search import TopK
from d2prune.knn.lists import Lists, ListSearch, SomeLists, Visits, search_lists, visits_of
from d2prune.knn.projections import Images, Projection

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

# A few lists as a pool of some millions has them, and all who visit them.
_LISTS, _MEMBERS, _QUERIES, _N_BEST, _TRIES = 4, 1_024, 32_768, 6, 2


@lru_cache(maxsize=4)
def list_search(n_dims: int) -> ListSearch:
    """Choose for this process; measured once.

    Args:
        n_dims: D of the rows.
    """
    if not torch.cuda.is_available():
        return search_lists
    # Imported late: workers without a GPU need not compile it.
    from d2prune.knn.device_search import DeviceSearch

    return faster(DeviceSearch("cuda"), n_dims)


def on_cpu(n_dims: int) -> bool:
    """Return whether the cores search, so that queries are to be spread over threads."""
    return list_search(n_dims) is search_lists


def projection_for(rows_ND: Float32, n_images: int, n_pairs: int) -> Projection | None:
    """Do what `Projection.fit` does where the CPU searches; a GPU has no use for images."""
    return Projection.fit(rows_ND, n_images, n_pairs) if on_cpu(rows_ND.shape[1]) else None


def search_probes(
    lists: SomeLists,
    queries_QD: Float32,
    probes_QP: Int32,
    top: TopK,
    threads: int = 1,
    images: Images | None = None,
) -> None:
    """Let queries meet the lists they visit; the home list first: it gives a close K-th distance, which excludes most.

    Args:
        lists: L lists.
        queries_QD: float32 [Q, D], contiguous.
        probes_QP: int32 [Q, P], lists of each query, home first; -1 for none.
        top: state of the Q queries, changed in place.
        threads: of a search on the CPU; changes speed only.
        images: as in `search_lists`.
    """
    search, n_queries, n_lists = list_search(queries_QD.shape[1]), len(queries_QD), len(lists.indptr) - 1

    def work(start: int, stop: int) -> None:
        for probes in (probes_QP[start:stop, :1], probes_QP[start:stop, 1:]):
            search(lists, queries_QD, visits_of(probes, n_lists, start), top, images)

    if search is search_lists:
        parallel_ranges(work, n_queries, threads, chunk=max(1, n_queries))
    else:
        work(0, n_queries)


def search_rows(
    rows_MD: Float32, positions_M: NDArray[np.int64], queries_QD: Float32, top: TopK, threads: int
) -> None:
    """Let all queries meet all rows; arguments as of `search_probes`."""
    search, lists = list_search(queries_QD.shape[1]), Lists.one(rows_MD, positions_M)

    def work(start: int, stop: int) -> None:
        search(lists, queries_QD, Visits.everyone(start, stop), top)

    if search is search_lists:
        parallel_ranges(work, len(queries_QD), threads)
    else:
        work(0, len(queries_QD))


def faster(candidate: ListSearch, n_dims: int, n_queries: int = _QUERIES) -> ListSearch:
    """Return `candidate` if it finds what the CPU finds, in less time than all cores need; else `search_lists`.

    Args:
        candidate: searches lists.
        n_dims: D.
        n_queries: that visit each of the lists which both are tried on.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n_queries, n_dims)) + 2 * rng.normal(size=n_dims)
    queries_QD = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    n_members = min(_MEMBERS, n_queries // _LISTS)
    members_MD = queries_QD[: _LISTS * n_members].copy()
    indptr = np.arange(_LISTS + 1) * n_members
    lists = Lists(members_MD, np.arange(len(members_MD)), indptr, members_MD[indptr[:-1]])
    visits = Visits(np.arange(_LISTS + 1) * n_queries, np.tile(np.arange(n_queries), _LISTS))
    found, seconds = [], []
    for search in (search_lists, candidate):
        best = np.inf
        for _ in range(_TRIES):  # the first compiles and uploads
            top = TopK.empty(n_queries, _N_BEST)
            start = time.perf_counter()
            try:
                search(lists, queries_QD, visits, top)
            except (RuntimeError, TypeError) as error:  # a driver, a library or a card that cannot
                log.warning("graph: lists are searched on the CPU: the GPU fails (%s)", error)
                return search_lists
            best = min(best, time.perf_counter() - start)
        found.append((top.sq_distances.tobytes(), top.positions.tobytes()))
        seconds.append(best)
    if found[0] != found[1]:
        log.warning("graph: lists are searched on the CPU: the GPU's products do not keep their error bound")
        return search_lists
    seconds[0] /= available_cores()
    log.info(
        "graph: %d lists take %.1f ms on all cores, %.1f ms on the GPU", _LISTS, *(1000 * s for s in seconds)
    )
    return candidate if seconds[1] < seconds[0] else search_lists
