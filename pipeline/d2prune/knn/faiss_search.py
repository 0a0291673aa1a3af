"""List search whose candidates faiss finds, on a GPU; with the same bits as `lists.search_lists`.

Reads float32 rows; updates a `TopK`. Invariant: the result does not depend on faiss, its device or its
rounding. For each query and list faiss returns the nearest members by distances of rounded rows. They get
canonical distances, nearest first, until a proven lower bound of the next one's exceeds the query's K-th
best: then the bound excludes all that follow, and all that faiss did not return. A query whose
candidates end before that is compared with the list again by the CPU kernel (`block_search`), which
needs no candidates. So the number of candidates changes the speed only.

The bound: |a - b| >= |a' - b'| - error(a) - error(b) for rounded rows a', b' (triangle inequality, errors
measured row by row), and faiss's |a' - b'|^2 is wrong by at most `_RELATIVE` times `accumulation` times
(|a'|^2 + |b'|^2): norms, product and their sum, in any order, with or without tensor cores, which
accumulate in float32. Rows are rounded once, without a centre, so that queries need no further pass for
each list: half a unit in the last place of float16 is small compared with the gaps between
neighbours of unit norm.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.threads import available_cores, parallel_ranges
from d2prune.extras import import_optional
from d2prune.knn.block_search import Members, Offers, search_block
from d2prune.knn.distances import sq_distance
from d2prune.knn.lists import ListRows, Visits, search_lists, visited_lists
from d2prune.knn.products import accumulation
from d2prune.knn.projections import ProjectedRows
from d2prune.knn.top_k import TopK, take

log = logging.getLogger(__name__)

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Queries of one call: each sends the members to the device again.
TILE_QUERIES = 2**18
# At least so many candidates of a query and list; up to 32, the GPU's selection stays in registers.
CANDIDATES = 32
# faiss's largest k on a GPU.
_MOST = 2048
_RELATIVE = 3.0
# Rows rounded at a time.
_CHUNK = 4096


class Nearest(Protocol):
    """A function that returns the nearest members of each query, nearest first."""

    def __call__(self, queries_TD: Float16, members_MD: Float16, count: int) -> tuple[Float32, Int64]:
        """Return squared distances and members, [T, count], as faiss computes them in float32."""


@dataclass(frozen=True)
class HalfRows:
    """Rows in float16, with what the bound needs.

    Attributes:
        values: float16 [R, D].
        sq_norms: float32 [R], squared norms of the rounded rows.
        errors: float32 [R], upper bounds of the norm of the rounding error.
    """

    values: Float16
    sq_norms: Float32
    errors: Float32

    def __getitem__(self, rows: Int64) -> HalfRows:
        """Return some rows."""
        return HalfRows(self.values[rows], self.sq_norms[rows], self.errors[rows])

    @classmethod
    def of(cls, rows_RD: Float32, threads: int) -> HalfRows:
        """Round rows of norm up to 100."""
        n_rows, n_dims = rows_RD.shape
        out = cls(
            np.empty((n_rows, n_dims), np.float16), np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
        )

        def round_range(start: int, stop: int) -> None:
            out.values[start:stop] = rows_RD[start:stop]
            back = out.values[start:stop].astype(np.float32)
            sq_norms = np.einsum("rd,rd->r", back, back)
            back -= rows_RD[start:stop]
            taken = np.sqrt(np.einsum("rd,rd->r", back, back)) * np.float32(1 + n_dims * 2.0**-22)
            out.sq_norms[start:stop] = sq_norms
            out.errors[start:stop] = taken + np.float32(2.0**-22) * np.sqrt(sq_norms) + np.float32(1e-30)

        parallel_ranges(round_range, n_rows, threads, _CHUNK)
        return out


class FaissSearch:
    """A `lists.ListSearch`; keeps the rounded query matrix between calls.

    Queries are offered to the members by a second search of the same kind, with the sides exchanged.
    """

    def __init__(self, nearest: Nearest, threads: int | None = None) -> None:
        """Choose what finds the candidates.

        Args:
            nearest: `nearest_on_cpu`, or `open_gpu()`.
            threads: that compute canonical distances; None: all cores. Changes speed only.
        """
        self._nearest, self._threads = nearest, threads or available_cores()
        self._host: Float32 | None = None
        self._held: HalfRows | None = None

    def __call__(
        self,
        lists: ListRows,
        queries_QD: Float32,
        visits: Visits,
        top: TopK,
        projected: ProjectedRows | None = None,
        offers: Offers | None = None,
    ) -> None:
        """Compare queries with the members of the lists they visit; ignores projections."""
        if max(CANDIDATES, 2 * top.positions.shape[1]) > _MOST:
            search_lists(lists, queries_QD, visits, top, None, offers)
            return
        queries = self._hold(queries_QD)
        for number, start, stop, visiting in visited_lists(lists.indptr, visits):
            rows_MD, positions_M = lists.read_rows(start, stop), lists.positions[start:stop]
            members = HalfRows.of(rows_MD, self._threads)
            self._search(
                queries_QD, queries, visiting, rows_MD, members, positions_M, lists.centroids[number], top
            )
            if offers is not None:
                self._search(
                    rows_MD,
                    members,
                    np.arange(len(rows_MD)),
                    queries_QD[visiting],
                    queries[visiting],
                    offers.positions[visiting],
                    lists.centroids[number],
                    offers.to(start, stop).top,
                )

    def _search(
        self,
        queries_QD: Float32,
        queries: HalfRows,
        index_Q: Int64,
        rows_MD: Float32,
        members: HalfRows,
        positions_M: Int64,
        centre_D: Float32,
        top: TopK,
    ) -> None:
        """Compare some queries with some members."""
        count = max(CANDIDATES, 2 * top.positions.shape[1])
        again = [
            self._compare(queries_QD, queries, index_Q[first : first + TILE_QUERIES], rows_MD, members,
                          positions_M, count, top)
            for first in range(0, len(index_Q), TILE_QUERIES)
        ]  # fmt: skip
        self._search_again(queries_QD, np.concatenate(again), rows_MD, positions_M, centre_D, top)

    def _hold(self, queries_QD: Float32) -> HalfRows:
        if self._host is not queries_QD or self._held is None:
            self._host = self._held = None
            self._held = HalfRows.of(queries_QD, self._threads)
            self._host = queries_QD
        return self._held

    def _compare(
        self,
        queries_QD: Float32,
        queries: HalfRows,
        index_T: Int64,
        rows_MD: Float32,
        members: HalfRows,
        positions_M: Int64,
        count: int,
        top: TopK,
    ) -> Int64:
        """Compare some queries with their candidates; return those that need the CPU kernel, unchanged."""
        count = min(count, len(rows_MD))
        sq_distances_TC, members_TC = self._nearest(queries.values[index_T], members.values, count)
        relative = _RELATIVE * accumulation(rows_MD.shape[1])
        slack_T = relative * (queries.sq_norms[index_T] + members.sq_norms.max()).astype(np.float64)
        errors_T = queries.errors[index_T].astype(np.float64) + members.errors.max()
        is_open_T = np.zeros(len(index_T), np.bool_)

        def rank(start: int, stop: int) -> None:
            part = slice(start, stop)
            _rank_candidates(
                queries_QD,
                index_T[part],
                rows_MD,
                positions_M,
                sq_distances_TC[part],
                members_TC[part],
                slack_T[part],
                errors_T[part],
                count == len(rows_MD),
                top.sq_distances,
                top.positions,
                is_open_T[part],
            )

        parallel_ranges(rank, len(index_T), self._threads, _CHUNK)
        return index_T[is_open_T]

    def _search_again(
        self,
        queries_QD: Float32,
        index_T: Int64,
        rows_MD: Float32,
        positions_M: Int64,
        centre_D: Float32,
        top: TopK,
    ) -> None:
        if not len(index_T):
            return
        members = Members.prepare(rows_MD, positions_M, centre_D)
        parallel_ranges(
            lambda start, stop: search_block(queries_QD, index_T[start:stop], members, top),
            len(index_T),
            self._threads,
        )


def nearest_on_cpu(queries_TD: Float16, members_MD: Float16, count: int) -> tuple[Float32, Int64]:
    """Find candidates with `faiss.knn`; see `Nearest`. For tests, since the CPU kernel is faster."""
    import faiss

    found: tuple[Float32, Int64] = faiss.knn(
        queries_TD.astype(np.float32), members_MD.astype(np.float32), count, metric=faiss.METRIC_L2
    )
    return found


def open_gpu() -> Nearest | None:
    """Return the search of `faiss.knn_gpu` on this process's GPU; None if this faiss has none."""
    faiss = import_optional("faiss")
    if faiss is None or not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        log.info(
            "graph: searching on the CPU: found no faiss with GPU search; d2prune[gpu] brings one, in place "
            "of faiss-cpu"
        )
        return None
    search: Any = faiss.knn_gpu  # its annotations leave out float16, which it takes
    resources = faiss.StandardGpuResources()

    def find(queries_TD: Float16, members_MD: Float16, count: int) -> tuple[Float32, Int64]:
        found: tuple[Float32, Int64] = search(
            resources, queries_TD, members_MD, count, metric=faiss.METRIC_L2, device=0
        )
        return found

    return find


@kernel
def _rank_candidates(
    queries_QD: Float32,
    index_T: Int64,
    members_MD: Float32,
    positions_M: Int64,
    sq_distances_TC: Float32,
    members_TC: Int64,
    slack_T: NDArray[np.float64],
    errors_T: NDArray[np.float64],
    are_all: bool,
    best_distances: Float32,
    best_positions: Int64,
    is_open_T: NDArray[np.bool_],
) -> None:
    """Update the K nearest of each query whose candidates suffice; mark the others, and leave them unchanged.

    `are_all`: the candidates are all members.
    """
    n_best = best_distances.shape[1]
    for t in range(index_T.shape[0]):
        row = index_T[t]
        distances_K, positions_K = best_distances[row].copy(), best_positions[row].copy()
        is_open = not are_all
        for c in range(members_TC.shape[1]):
            bound = distances_K[n_best - 1]
            if bound != np.inf:
                low = np.sqrt(max(np.float64(sq_distances_TC[t, c]) - slack_T[t], 0.0)) - errors_T[t]
                # 1 + 2^-20 covers the rounding of the canonical distance and of this formula.
                if low > 0.0 and low * low > np.float64(bound) * (1.0 + 2.0**-20):
                    is_open = False
                    break
            m = members_TC[t, c]
            if m < 0:  # faiss found no finite distance
                is_open = True
                break
            distance = sq_distance(queries_QD[row], members_MD[m])
            take(distances_K, positions_K, distance, positions_M[m])
        is_open_T[t] = is_open
        if not is_open:
            best_distances[row], best_positions[row] = distances_K, positions_K
