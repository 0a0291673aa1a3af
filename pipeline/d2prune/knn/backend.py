"""Chooses where lists are searched: on the GPU if it is faster and gives the same bits, else on the CPU.

Invariant: every choice gives the same result (`lists.search_lists`), so it is part of no
fingerprint. A worker that asked Ray for no GPU sees none, and searches on the CPU.
"""

import itertools
import logging
import time
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.knn import products
from d2prune.knn.block_search import Offers
from d2prune.knn.lists import ListRows, Lists, ListSearch, Visits, search_lists, visits_of
from d2prune.knn.merge import merge_into
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.knn.top_k import TopK

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

# The trial: a few lists as large as in a pool of some millions, all visited by every query.
_LISTS, _MEMBERS, _QUERIES, _N_BEST, _ATTEMPTS = 4, 1_024, 32_768, 6, 2
# Rows that all queries are compared with at a time. On a GPU, each block sends all queries again.
_CPU_BLOCK, _GPU_BLOCK = 8_192, 2**20


@lru_cache(maxsize=4)
def choose_search(n_dims: int) -> ListSearch:
    """Choose the list search of this process; measured once.

    Args:
        n_dims: D of the rows.
    """
    if products.torch is None or not products.torch.cuda.is_available():
        return search_lists
    # Imported late, because workers without a GPU need not load faiss.
    from d2prune.knn.faiss_search import FaissSearch, open_gpu

    nearest = open_gpu()
    return search_lists if nearest is None else faster_search(FaissSearch(nearest), n_dims)


def searches_on_cpu(n_dims: int) -> bool:
    """Return whether the CPU searches, so that queries must be spread over threads."""
    return choose_search(n_dims) is search_lists


def block_rows(n_dims: int) -> int:
    """Return how many rows `search_rows` should get at a time; changes speed only."""
    return _CPU_BLOCK if searches_on_cpu(n_dims) else _GPU_BLOCK


def fit_projection(rows_ND: Float32, n_projected: int, n_pairs: int) -> Projection | None:
    """Fit a projection (`Projection.fit`) if the CPU searches; the search on a GPU uses none."""
    return Projection.fit(rows_ND, n_projected, n_pairs) if searches_on_cpu(rows_ND.shape[1]) else None


def search_probes(
    lists: ListRows,
    queries_QD: Float32,
    probes_QP: Int32,
    top: TopK,
    threads: int = 1,
    projected: ProjectedRows | None = None,
    offers: Offers | None = None,
) -> None:
    """Search the lists that each query visits.

    A query that has close neighbours excludes most members without a look at them; so does a member.
    So search home lists first.

    Args:
        lists: L lists.
        queries_QD: float32 [Q, D], contiguous.
        probes_QP: int32 [Q, P], lists of each query; -1 for none.
        top: nearest so far of the Q queries, updated in place.
        threads: of a search on the CPU; changes speed only.
        projected: as in `search_lists`.
        offers: as in `search_lists`.
    """
    search, n_queries, n_lists = choose_search(queries_QD.shape[1]), len(queries_QD), len(lists.indptr) - 1
    if search is not search_lists or threads == 1:
        search(lists, queries_QD, visits_of(probes_QP, n_lists), top, projected, offers)
        return
    visits = {}

    def invert(start: int, stop: int) -> None:
        visits[start] = visits_of(probes_QP[start:stop], n_lists, start)

    parallel_ranges(invert, n_queries, threads, chunk=max(1, n_queries))
    # Threads would offer their queries to the same members. So each has its own `TopK`, for some
    # lists at a time: all of them together are as large as that of all members.
    for low, high in _divide_lists(lists.indptr, 1 if offers is None else threads):
        members = slice(int(lists.indptr[low]), int(lists.indptr[high]))
        found: list[TopK] = []

        def search_range(
            start: int,
            stop: int,
            low: int = low,
            high: int = high,
            members: slice = members,
            found: list[TopK] = found,
        ) -> None:
            own = None
            if offers is not None:
                bounds_M = offers.top.sq_distances[members, -1]
                own_top = TopK.empty(len(bounds_M), top.positions.shape[1], bounds_M)
                own = Offers(offers.positions, own_top, members.start)
                found.append(own_top)
            search(lists, queries_QD, visits[start].within(low, high), top, projected, own)

        parallel_ranges(search_range, n_queries, threads, chunk=max(1, n_queries))
        if offers is not None:
            for own_top in found:
                merge_into(offers.top[members], own_top)


def _divide_lists(indptr: NDArray[np.int64], count: int) -> Iterator[tuple[int, int]]:
    """Yield up to `count` ranges of lists of about as many rows each."""
    cuts = np.searchsorted(indptr, np.linspace(0, indptr[-1], count + 1))
    return itertools.pairwise(np.unique([0, *cuts[1:-1], len(indptr) - 1]).tolist())


def search_rows(
    rows_MD: Float32, positions_M: NDArray[np.int64], queries_QD: Float32, top: TopK, threads: int
) -> None:
    """Compare all queries with all rows.

    Args:
        rows_MD: float32 [M, D], contiguous, M >= 1.
        positions_M: int64 [M], canonical positions.
        queries_QD: float32 [Q, D], contiguous.
        top: nearest so far of the Q queries, updated in place.
        threads: of a search on the CPU; changes speed only.
    """
    search, lists = choose_search(queries_QD.shape[1]), Lists.single(rows_MD, positions_M)

    def search_range(start: int, stop: int) -> None:
        search(lists, queries_QD, Visits.of_all(start, stop), top)

    if search is search_lists:
        parallel_ranges(search_range, len(queries_QD), threads)
    else:
        search_range(0, len(queries_QD))


def faster_search(candidate: ListSearch, n_dims: int, n_queries: int = _QUERIES) -> ListSearch:
    """Return `candidate` if it gives the CPU's result in less time than all cores need; else `search_lists`.

    Args:
        candidate: the list search to try.
        n_dims: D.
        n_queries: queries of the trial, each of which visits every list.
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
        for _ in range(_ATTEMPTS):  # the first one compiles and uploads
            top, member_top = (TopK.empty(count, _N_BEST) for count in (n_queries, len(members_MD)))
            offers = Offers(np.arange(n_queries), member_top)
            start = time.perf_counter()
            try:
                search(lists, queries_QD, visits, top, None, offers)
            except (RuntimeError, TypeError) as error:  # a driver, library or GPU that does not support it
                log.warning("graph: searching on the CPU: the GPU search failed (%s)", error)
                return search_lists
            best = min(best, time.perf_counter() - start)
        found.append([part.tobytes() for t in (top, member_top) for part in (t.sq_distances, t.positions)])
        seconds.append(best)
    if found[0] != found[1]:
        log.warning("graph: searching on the CPU: the GPU's products exceed their error bound")
        return search_lists
    seconds[0] /= available_cores()
    is_faster = seconds[1] < seconds[0]
    log.info(
        "graph: searching on the %s: %d lists take %.1f ms on all CPU cores, %.1f ms on the GPU",
        "GPU" if is_faster else "CPU",
        _LISTS,
        *(1000 * s for s in seconds),
    )
    return candidate if is_faster else search_lists
