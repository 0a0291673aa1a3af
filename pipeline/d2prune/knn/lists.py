"""Inverted lists and the all-points search over them: each list meets all its queries at once.

Reads rows grouped by list, and which queries visit which list; updates a `TopK`. Invariant: a
query's result is fixed by the lists it visits. Lists may be grouped into partitions, and queries
into batches, in any way.

A partition is a `Lists` holding some of the pool's lists. Its own rows search first in their home
lists, which gives every query a close K-th distance; then come the visits of other lists, in this
partition or, with that distance as the bound, in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.knn.block_search import Members, TopK, search_block
from d2prune.knn.projections import Images

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class SomeLists(Protocol):
    """What a search has to know of lists, however their rows are kept; see `Lists`."""

    @property
    def positions(self) -> Int64:
        """Canonical positions, int64 [M]."""

    @property
    def indptr(self) -> Int64:
        """Where each list begins, int64 [L+1]."""

    @property
    def centroids(self) -> Float32:
        """Float32 [L, D]."""

    @property
    def images(self) -> Images | None:
        """Those of the rows, if they are to be compared by them."""

    def rows_of(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop), float32 and contiguous."""


class ListSearch(Protocol):
    """Does what `search_lists` does."""

    def __call__(
        self, lists: SomeLists, queries_QD: Float32, visits: Visits, top: TopK, images: Images | None = None
    ) -> None:
        """Let queries meet the members of the lists they visit."""


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

    @classmethod
    def one(cls, rows_MD: Float32, positions_M: Int64) -> Lists:
        """Return all these rows as one list."""
        return cls(rows_MD, positions_M, np.array([0, len(rows_MD)]), rows_MD.mean(axis=0, keepdims=True))

    def rows_of(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop)."""
        return self.rows[start:stop]


@dataclass(frozen=True)
class Visits:
    """Which queries visit each list.

    Attributes:
        indptr: int64 [L+1].
        queries: int64 [V], rows of the query matrix, ascending within a list, each once.
    """

    indptr: Int64
    queries: Int64

    @classmethod
    def everyone(cls, start: int, stop: int) -> Visits:
        """Return that the queries [start, stop) all visit one list."""
        return cls(np.array([0, stop - start]), np.arange(start, stop))


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


def search_lists(
    lists: SomeLists, queries_QD: Float32, visits: Visits, top: TopK, images: Images | None = None
) -> None:
    """Let queries meet the members of the lists they visit, on the calling thread.

    Args:
        lists: L lists.
        queries_QD: float32 [Q, D], contiguous.
        visits: of the same L lists.
        top: state of the Q queries, changed in place.
        images: of the queries, to be used if the lists have theirs.
    """
    for number, start, stop, visiting in met(lists.indptr, visits):
        both = images is not None and lists.images is not None
        of_members = lists.images[start:stop] if both and lists.images is not None else None
        members = Members.prepare(
            lists.rows_of(start, stop),
            lists.positions[start:stop],
            lists.centroids[number],
            images=of_members,
        )
        search_block(queries_QD, visiting, members, top, images if both else None)


def met(indptr: Int64, visits: Visits) -> Iterator[tuple[int, int, int, Int64]]:
    """Yield (number, first row, end, queries that visit) of each list that has both rows and visitors."""
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
