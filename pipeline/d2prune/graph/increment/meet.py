"""Step `meet`: compare the rows of a share with the added rows, and all seekers with the share's rows.

A unit holds its share's distinct rows as they are stored, in order of their home lists, and goes
through them a few lists at a time. One product covers such a chunk and the seekers that may meet any of
its rows: those that visit one of its lists, or are at home where one of its rows visits. Of the pairs
that are near enough, those of which neither row visits the other's home list are left out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.increment.rows import (
    Seekers,
    find_bereft,
    group_members,
    previous_of,
    read_part_state,
    read_raw_distinct,
    read_seekers,
    share_parts,
)
from d2prune.graph.increment.sample import read_sample
from d2prune.graph.steps.edges import DISTANCES, NEAREST
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import GROUP_MEMBER, features_of, groups_of
from d2prune.graph.steps.quantise import CHECKED
from d2prune.graph.steps.search import CANDIDATES, candidate_type
from d2prune.graph.steps.state import CheckedSample
from d2prune.graph.trained import read_trained
from d2prune.knn.backend import fit_projection
from d2prune.knn.block_search import Members, Offers, Visited, search_block
from d2prune.knn.duplicates import expand
from d2prune.knn.list_partitions import group_lists
from d2prune.knn.lists import Lists, search_lists, visits_of
from d2prune.knn.merge import merge_into
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.knn.top_k import NO_POSITION, TopK
from d2prune.parts.spans import Spans
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# Rows of a chunk, at least: enough for products, and few enough for the cache.
_CHUNK = 1_024
_FIT_ROWS = 2_048


@dataclass(frozen=True)
class _Share:
    """The M distinct rows of a share, in order of their home lists, near lists together.

    Attributes:
        positions: int64 [M].
        visited: int32 [M, V].
        raws: [Q, D] of each part, as stored.
        order: int64 [M], number in canonical order of each row.
        starts: [parts + 1], number in canonical order of each part's first row.
        top: K nearest of each among the rows that were kept; seekers take nothing.
        seeks: bool [M], whether a row is added or bereft.
        is_added: bool [M].
        bounds: the first row of each chunk, and M.
        members: GROUP_MEMBER records.
    """

    positions: Int64
    visited: Int32
    raws: list[NDArray[Any]]
    order: Int64
    starts: Int64
    top: TopK
    seeks: NDArray[np.bool_]
    is_added: NDArray[np.bool_]
    bounds: list[int]
    members: exchange.Records

    def read_raw(self, numbers_C: Int64) -> NDArray[Any]:
        """Gather rows by their numbers in canonical order, [C, D].

        From the parts' arrays: to copy them into one would take as long as to read them.
        """
        raw_CD = np.empty((len(numbers_C), self.raws[0].shape[1]), np.result_type(*self.raws))
        for part, index_C, row_C in Spans(self.starts).by_part(numbers_C):
            raw_CD[index_C] = self.raws[part][row_C]
        return raw_CD


def meet(job: Job, share_number: int) -> Receipt:
    """Search a share; commit the nearest rows of its own rows, and what it found for seekers."""
    assert job.given is not None
    centroids_LD = read_trained(job.folder, job.given).centroids
    share = _read_share(job, share_number, centroids_LD)
    sample, is_known_S = read_sample(job)
    # The stored distance bounds what is left to find.
    true = TopK.empty(len(sample.positions), job.n_best, sample.top.sq_distances[:, -1])
    groups = groups_of(share.members)
    found = []
    for number, seekers in enumerate(read_seekers(job)):
        projection = _fit(job, share, seekers)
        search = _Search(job, share, seekers, centroids_LD, projection)
        for start, stop in itertools.pairwise(share.bounds):
            rows_CD = features_of(job, share.read_raw(share.order[start:stop]))
            projected = None if projection is None else projection.project(rows_CD, job.layout.threads)
            search.meet_chunk(start, rows_CD, projected)
            if number == 0:
                _meet_sample(share, start, rows_CD, sample, is_known_S, true)
        top = expand(search.top, *groups)
        has_any = top.positions[:, 0] != NO_POSITION
        candidates = np.empty(int(has_any.sum()), candidate_type(job.n_best))
        candidates["query"] = seekers.positions[has_any]
        candidates["sq_distances"], candidates["positions"] = (
            top.sq_distances[has_any],
            top.positions[has_any],
        )
        found.append((candidates, share_of(job, candidates["query"])))
    true = expand(true, *groups)
    # They are found by all shares.
    share.top.sq_distances[share.seeks] = np.inf
    restore_M = np.empty_like(share.order)
    restore_M[share.order] = np.arange(len(share.order))
    files = {
        CANDIDATES: exchange.pack_batches(found, job.slices),
        DISTANCES: share.top.sq_distances[restore_M],
        NEAREST: share.top.positions[restore_M],
        f"{CHECKED}-{DISTANCES}": true.sq_distances,
        f"{CHECKED}-{NEAREST}": true.positions,
    }
    return job.commit("meet", share_number, files)


def share_of(job: Job, positions_N: Int64) -> Int64:
    """The share of each position, int64 [N]."""
    return np.searchsorted(job.slice_bounds, job.spans.part_of(positions_N), side="right") - 1


def _read_share(job: Job, number: int, centroids_LD: Float32) -> _Share:
    previous = previous_of(job)
    positions, visited, distances, nearest, seeks, is_added = [], [], [], [], [], []
    members = [np.zeros(0, GROUP_MEMBER)]
    raws: list[NDArray[Any]] = []
    for part in share_parts(job, number):
        state, start = read_part_state(job, part), int(job.starts[part])
        added = previous.matches[part] < 0
        seeks_Q = np.full(len(state.visited), added)
        if not added:
            bereft = find_bereft(state.top)
            seeks_Q[bereft] = True
        positions.append(state.groups.first_Q + start)
        visited.append(state.visited)
        distances.append(state.top.sq_distances)
        nearest.append(state.top.positions)
        seeks.append(seeks_Q)
        is_added.append(np.full(len(seeks_Q), added))
        members.append(group_members(state.groups, start, job.n_best))
        raws.append(read_raw_distinct(job, part, state.groups))
    visited_MV = np.concatenate(visited)
    home_M = visited_MV[:, 0]
    n_groups = min(len(centroids_LD), max(1, len(home_M) // _CHUNK))
    group_L = group_lists(centroids_LD, np.bincount(home_M, minlength=len(centroids_LD)), n_groups)
    order_M = np.lexsort((home_M, group_L[home_M]))
    firsts = np.flatnonzero(np.diff(group_L[home_M[order_M]], prepend=-1))
    top = TopK(np.concatenate(distances)[order_M], np.concatenate(nearest)[order_M])
    seeks_M = np.concatenate(seeks)[order_M]
    top.sq_distances[seeks_M], top.positions[seeks_M] = -np.inf, NO_POSITION
    return _Share(
        np.concatenate(positions)[order_M],
        visited_MV[order_M],
        raws,
        order_M,
        np.cumsum([0, *map(len, raws)]),
        top,
        seeks_M,
        np.concatenate(is_added)[order_M],
        [*firsts.tolist(), len(order_M)],
        np.concatenate(members),
    )


def _fit(job: Job, share: _Share, seekers: Seekers) -> Projection | None:
    """Fit a projection for comparing a share with some seekers, if it pays."""
    n_rows = len(share.order)
    sample = features_of(job, share.read_raw(np.arange(0, n_rows, max(1, n_rows // _FIT_ROWS))))
    return fit_projection(sample, n_rows + len(seekers.rows), n_rows * len(seekers.rows) // 32)


class _Search:
    """Compares a share with one batch of seekers, chunk by chunk.

    Attributes:
        top: K nearest of each seeker among the share's distinct rows.
    """

    def __init__(
        self, job: Job, share: _Share, seekers: Seekers, centroids_LD: Float32, projection: Projection | None
    ) -> None:
        nlist = len(centroids_LD)
        self._share, self._seekers = share, seekers
        self._projected = None if projection is None else projection.project(seekers.rows, job.layout.threads)
        self._visits = visits_of(seekers.visited, nlist)
        self._at_home = visits_of(seekers.visited[:, :1], nlist)
        bounds_Q = self._bound(job.n_best, centroids_LD) if seekers.are_added else None
        self.top = TopK.empty(len(seekers.rows), job.n_best, bounds_Q)
        self._groups = groups_of(seekers.groups)
        # Rows that were kept know all others that were.
        self._offered = np.where(seekers.are_added, seekers.positions, NO_POSITION)

    def _bound(self, n_best: int, centroids_LD: Float32) -> Float32:
        """Bound the distances of added rows by those of added rows they visit, which are in some share.

        Without a bound, a row compares itself with all rows of the first chunks.
        """
        order_A = self._at_home.queries
        near = Lists(
            self._seekers.rows[order_A],
            self._seekers.positions[order_A],
            self._at_home.indptr,
            centroids_LD,
            None if self._projected is None else self._projected[order_A],
        )
        top = TopK.empty(len(order_A), n_best)
        search_lists(near, self._seekers.rows, self._visits, top, self._projected)
        return top.sq_distances[:, -1]

    def meet_chunk(self, start: int, rows_CD: Float32, projected: ProjectedRows | None) -> None:
        """Compare the rows of the share from `start` on, given as float32 and projected."""
        rows = slice(start, start + len(rows_CD))
        share, seekers = self._share, self._seekers
        may_meet_Q = np.zeros(len(seekers.rows), bool)
        for visits, visited in (
            (self._visits, share.visited[rows, 0]),
            (self._at_home, share.visited[rows]),
        ):
            for number in np.unique(visited[visited >= 0]).tolist():
                may_meet_Q[visits.queries[visits.indptr[number] : visits.indptr[number + 1]]] = True
        index_Q = np.flatnonzero(may_meet_Q)
        if not len(index_Q):
            return
        # Apart from the stored ones, which already stand for all rows of their groups.
        top = share.top[rows]
        found = TopK.empty(len(rows_CD), top.positions.shape[1], top.sq_distances[:, -1])
        search_block(
            seekers.rows,
            index_Q,
            Members.prepare(rows_CD, share.positions[rows], projected=projected),
            self.top,
            self._projected,
            Offers(self._offered, found),
            Visited(seekers.visited, share.visited[rows]),
        )
        merge_into(top, expand(found, *self._groups))


def _meet_sample(
    share: _Share,
    start: int,
    rows_CD: Float32,
    sample: CheckedSample,
    is_known_S: NDArray[np.bool_],
    true: TopK,
) -> None:
    """Compare rows of the share with the sample, by brute force: all rows, or the added ones only."""
    positions_C = share.positions[start : start + len(rows_CD)]
    unknown, known = np.flatnonzero(~is_known_S), np.flatnonzero(is_known_S)
    if len(unknown):
        search_block(sample.rows, unknown, Members.prepare(rows_CD, positions_C), true)
    added = np.flatnonzero(share.is_added[start : start + len(rows_CD)])
    if len(known) and len(added):
        search_block(sample.rows, known, Members.prepare(rows_CD[added], positions_C[added]), true)
