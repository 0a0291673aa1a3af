"""Inverted lists and the all-points search over them: each list meets all its queries at once.

Reads rows grouped by list, and which queries visit which list; updates a `TopK`. Invariant: a query's result is fixed
by the lists it visits. Lists may be grouped into partitions, and queries into batches, in any way.

A partition is a `Lists` holding some of the pool's lists. Its own rows search first in their home lists, which gives
every query a close K-th distance; then come the visits of other lists, in this partition or, with that distance as the
bound, in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.graph.images import Images
from pipeline.graph.search import Members, TopK, search_block

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class BlockSearch(Protocol):
    """Does what `search_block` does for one block."""

    def __call__(
        self,
        queries_QD: Float32,
        index_B: Int64,
        rows_MD: Float32,
        positions_M: Int64,
        centre_D: Float32,
        top: TopK,
        images: tuple[Images, Images] | None = None,
    ) -> None:
        """Let the block's rows of the queries meet the members; `images` are those of both, to be used or not."""


@dataclass(frozen=True)
class Lists:
    """Rows ordered by list.

    Attributes:
        rows: float32 [M, D], contiguous.
        positions: int64 [M], canonical positions.
        indptr: int64 [L+1]; list l is `rows[indptr[l]:indptr[l+1]]`, possibly empty.
        centroids: float32 [L, D].
        images: of the rows, if they are to be compared by them.
    """

    rows: Float32
    positions: Int64
    indptr: Int64
    centroids: Float32
    images: Images | None = None


@dataclass(frozen=True)
class Visits:
    """Which queries visit each list.

    Attributes:
        indptr: int64 [L+1].
        queries: int64 [V], rows of the query matrix, ascending within a list, each once.
    """

    indptr: Int64
    queries: Int64


def visits_of(probes_QP: Int32, n_lists: int, first_query: int = 0) -> Visits:
    """Turn each query's lists into each list's queries.

    Args:
        probes_QP: int32 [Q, P], lists to visit, -1 for none; the lists of a row differ.
        n_lists: L.
        first_query: number of the query in row 0.

    Returns:
        The visits, ordered by list, then query.
    """
    counts = np.bincount(probes_QP[probes_QP >= 0], minlength=n_lists)
    indptr = np.zeros(n_lists + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return Visits(indptr, _invert(probes_QP, indptr, first_query))


def search_on_cpu(
    queries_QD: Float32,
    index_B: Int64,
    rows_MD: Float32,
    positions_M: Int64,
    centre_D: Float32,
    top: TopK,
    images: tuple[Images, Images] | None = None,
) -> None:
    """Search one block on the calling thread; see `search.search_block`."""
    of_queries, of_members = images or (None, None)
    members = Members.prepare(rows_MD, positions_M, centre_D, images=of_members)
    search_block(queries_QD, index_B, members, top, of_queries)


def search_lists(
    lists: Lists,
    queries_QD: Float32,
    visits: Visits,
    top: TopK,
    search: BlockSearch = search_on_cpu,
    images: Images | None = None,
) -> None:
    """Let queries meet the members of the lists they visit.

    Args:
        lists: L lists.
        queries_QD: float32 [Q, D], contiguous.
        visits: of the same L lists.
        top: state of the Q queries, changed in place.
        search: searches one block; which one changes speed only.
        images: of the queries, if the lists have theirs.
    """
    for number in range(len(lists.indptr) - 1):
        start, stop = lists.indptr[number], lists.indptr[number + 1]
        visiting = visits.queries[visits.indptr[number] : visits.indptr[number + 1]]
        if start == stop or len(visiting) == 0:
            continue
        rows_MD, positions_M = lists.rows[start:stop], lists.positions[start:stop]
        both = None if images is None or lists.images is None else (images, lists.images[start:stop])
        search(queries_QD, visiting, rows_MD, positions_M, lists.centroids[number], top, both)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _invert(probes_QP: Int32, indptr: Int64, first_query: int) -> Int64:
    cursor = indptr[:-1].copy()
    queries = np.empty(indptr[-1], np.int64)
    for q in range(probes_QP.shape[0]):
        for p in range(probes_QP.shape[1]):
            number = probes_QP[q, p]
            if number >= 0:
                queries[cursor[number]] = first_query + q
                cursor[number] += 1
    return queries
