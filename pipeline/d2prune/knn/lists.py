"""Inverted lists, and the search of each list for all the queries that visit it, in one pass.

Reads rows grouped by list, and the queries that visit each list; updates a `TopK`. Invariant: a
query's result is determined by the lists it visits, however lists are grouped into partitions and
queries into batches.

A partition is a `Lists` with some of the pool's lists. Rows first search their home lists, which
gives each query a close K-th distance; the other lists follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.knn.block_search import Members, Offers, search_block
from d2prune.knn.projections import ProjectedRows
from d2prune.knn.top_k import TopK

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class ListRows(Protocol):
    """What a search needs of lists, however their rows are stored; see `Lists`."""

    @property
    def positions(self) -> Int64:
        """Canonical positions, int64 [M]; NO_POSITION for rows that no query takes."""

    @property
    def indptr(self) -> Int64:
        """First row of each list, int64 [L+1]."""

    @property
    def centroids(self) -> Float32:
        """Centroids, float32 [L, D]."""

    @property
    def projected(self) -> ProjectedRows | None:
        """Projections of the rows, if they are to be compared by them."""

    def read_rows(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop), float32 and contiguous."""


class ListSearch(Protocol):
    """A function that does what `search_lists` does."""

    def __call__(
        self,
        lists: ListRows,
        queries_QD: Float32,
        visits: Visits,
        top: TopK,
        projected: ProjectedRows | None = None,
        offers: Offers | None = None,
    ) -> None:
        """Compare queries with the members of the lists they visit."""


@dataclass(frozen=True)
class Lists:
    """Rows in memory, ordered by list.

    Attributes:
        rows: float32 [M, D], contiguous.
        positions: int64 [M], canonical positions; NO_POSITION for rows that no query takes.
        indptr: int64 [L+1]; list l is `rows[indptr[l]:indptr[l+1]]`, possibly empty.
        centroids: float32 [L, D].
        projected: of the rows, if they are to be compared by their projections.
    """

    rows: Float32
    positions: Int64
    indptr: Int64
    centroids: Float32
    projected: ProjectedRows | None = None

    @classmethod
    def single(cls, rows_MD: Float32, positions_M: Int64) -> Lists:
        """Return all rows as one list."""
        return cls(rows_MD, positions_M, np.array([0, len(rows_MD)]), rows_MD.mean(axis=0, keepdims=True))

    def read_rows(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop)."""
        return self.rows[start:stop]


@dataclass(frozen=True)
class Visits:
    """The queries that visit each list.

    Attributes:
        indptr: int64 [L+1]; the visitors of list l are `queries[indptr[l]:indptr[l+1]]`.
        queries: int64 [V], rows of the query matrix, ascending within a list, each once.
    """

    indptr: Int64
    queries: Int64

    @classmethod
    def of_all(cls, start: int, stop: int) -> Visits:
        """Return visits of the queries [start, stop) to a single list."""
        return cls(np.array([0, stop - start]), np.arange(start, stop))

    def within(self, low: int, high: int) -> Visits:
        """Return the visits to the lists [low, high) alone, of the same L lists."""
        return Visits(self.indptr.clip(self.indptr[low], self.indptr[high]), self.queries)


def visits_of(probes_QP: Int32, n_lists: int, first_query: int = 0) -> Visits:
    """Invert each query's lists into each list's queries.

    Args:
        probes_QP: int32 [Q, P], lists to visit, -1 for none; the lists of one query are distinct.
        n_lists: L.
        first_query: number of the query in row 0.

    Returns:
        The visits, ordered by list, then query.
    """
    counts = np.bincount(probes_QP[probes_QP >= 0], minlength=n_lists)
    indptr = np.zeros(n_lists + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return Visits(indptr, _invert(probes_QP, indptr, first_query))


def search_lists(
    lists: ListRows,
    queries_QD: Float32,
    visits: Visits,
    top: TopK,
    projected: ProjectedRows | None = None,
    offers: Offers | None = None,
) -> None:
    """Compare queries with the members of the lists they visit, on the calling thread.

    Args:
        lists: L lists.
        queries_QD: float32 [Q, D], contiguous.
        visits: to the same L lists.
        top: nearest so far of the Q queries, updated in place.
        projected: of the queries; used if the lists have projections too.
        offers: the queries as candidates of the members; None: the members take nothing.
    """
    of_lists = None if projected is None else lists.projected
    for number, start, stop, visiting in visited_lists(lists.indptr, visits):
        members = Members.prepare(
            lists.read_rows(start, stop),
            lists.positions[start:stop],
            lists.centroids[number],
            projected=None if of_lists is None else of_lists[start:stop],
        )
        search_block(
            queries_QD,
            visiting,
            members,
            top,
            None if of_lists is None else projected,
            None if offers is None else offers.to(start, stop),
        )


def visited_lists(indptr: Int64, visits: Visits) -> Iterator[tuple[int, int, int, Int64]]:
    """Yield (number, first row, end, visiting queries) of each list that has both rows and visitors."""
    for number in np.flatnonzero(np.diff(indptr) * np.diff(visits.indptr)).tolist():
        visiting = visits.queries[visits.indptr[number] : visits.indptr[number + 1]]
        yield number, int(indptr[number]), int(indptr[number + 1]), visiting


@kernel
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
