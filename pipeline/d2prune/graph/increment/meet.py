"""Step `meet`: compare the rows of a share with the added rows, and all seekers with the share's rows.

A unit holds its share's distinct rows as they are stored, in order of their home lists, and goes
through them a few lists at a time. The kept rows of such a chunk are compared with the added rows of
all lists that any of them visits, which one product covers; what a row does not visit is left out
afterwards. That is exact as long as fewer rows than `_SLOTS` are as near as the row's stored
neighbours; the few rows for which there are more search their lists one by one.
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
from d2prune.knn.block_search import NO_POSITION, Members, TopK, search_block
from d2prune.knn.duplicates import expand
from d2prune.knn.list_partitions import group_lists
from d2prune.knn.lists import Lists, search_lists, visits_of
from d2prune.knn.merge import merge
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.parts.spans import Spans
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# Rows of a chunk, at least: enough for products, and few enough for the cache.
_CHUNK = 1_024
# Added rows as near as its stored neighbours that a row can have before its lists are searched, at least.
_SLOTS = 16
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
        top: K nearest of each among the rows that were kept; empty for seekers.
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
    grouped = groups_of(share.positions, share.members) if len(share.members) else None
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
        top = search.top if grouped is None else expand(search.top, *grouped)
        has_any = top.positions[:, 0] != NO_POSITION
        candidates = np.empty(int(has_any.sum()), candidate_type(job.n_best))
        candidates["query"] = seekers.positions[has_any]
        candidates["sq_distances"], candidates["positions"] = (
            top.sq_distances[has_any],
            top.positions[has_any],
        )
        found.append((candidates, share_of(job, candidates["query"])))
    true = true if grouped is None else expand(true, *grouped)
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
            state.top.sq_distances[bereft], state.top.positions[bereft] = np.inf, NO_POSITION
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
    return _Share(
        np.concatenate(positions)[order_M],
        visited_MV[order_M],
        raws,
        order_M,
        np.cumsum([0, *map(len, raws)]),
        top,
        np.concatenate(seeks)[order_M],
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
        self._share, self._seekers, self._centroids = share, seekers, centroids_LD
        self._projected = None if projection is None else projection.project(seekers.rows, job.layout.threads)
        self.top = TopK.empty(len(seekers.rows), job.n_best)
        nlist = len(centroids_LD)
        self._visits = visits_of(seekers.visited, nlist)
        # The added rows, by home list.
        home_A = seekers.visited[:, 0] if seekers.are_added else np.zeros(0, np.int32)
        self._order_A = np.argsort(home_A, kind="stable")
        self._indptr = np.searchsorted(home_A[self._order_A], np.arange(nlist + 1))
        self._grouped = groups_of(seekers.positions, seekers.groups) if len(seekers.groups) else None

    def meet_chunk(self, start: int, rows_CD: Float32, projected: ProjectedRows | None) -> None:
        """Compare the rows of the share from `start` on, given as float32 and projected."""
        self._search_seekers(start, rows_CD, projected)
        kept_Q = np.flatnonzero(~self._share.seeks[start : start + len(rows_CD)])
        if self._seekers.are_added and len(kept_Q):
            self._search_kept(start, kept_Q, rows_CD, projected)

    def _search_seekers(self, start: int, rows_CD: Float32, projected: ProjectedRows | None) -> None:
        """Compare the seekers with the rows of the lists they visit."""
        share, visits = self._share, self._visits
        home_C = share.visited[start : start + len(rows_CD), 0]
        bounds = [*np.flatnonzero(np.diff(home_C, prepend=-1)).tolist(), len(home_C)]
        for low, high in itertools.pairwise(bounds):
            number = int(home_C[low])
            visiting = visits.queries[visits.indptr[number] : visits.indptr[number + 1]]
            if len(visiting):
                members = Members.prepare(
                    rows_CD[low:high],
                    share.positions[start + low : start + high],
                    self._centroids[number],
                    projected=None if projected is None else projected[low:high],
                )
                search_block(self._seekers.rows, visiting, members, self.top, self._projected)

    def _search_kept(
        self, start: int, kept_Q: Int64, rows_CD: Float32, projected: ProjectedRows | None
    ) -> None:
        """Compare kept rows with the added rows of the lists they visit."""
        seekers, visited_QV = self._seekers, self._share.visited[start + kept_Q]
        is_visited_L = np.zeros(len(self._centroids), bool)
        is_visited_L[visited_QV[visited_QV >= 0]] = True
        lists = np.flatnonzero(is_visited_L & (np.diff(self._indptr) > 0))
        if not len(lists):
            return
        sizes = np.diff(self._indptr)[lists]
        ends = np.cumsum(sizes)
        chosen = self._order_A[np.arange(ends[-1]) + np.repeat(self._indptr[lists] - (ends - sizes), sizes)]
        near = Lists(
            seekers.rows[chosen],
            seekers.positions[chosen],
            np.append(0, ends),
            self._centroids[lists],
            None if self._projected is None else self._projected[chosen],
        )
        bounds_Q = self._share.top.sq_distances[start + kept_Q, -1]
        # `_merge` expands groups in place, so there is a slot for each of the nearest.
        found = TopK.empty(len(rows_CD), max(_SLOTS, self.top.positions.shape[1]))
        found.sq_distances[kept_Q] = bounds_Q[:, None]
        members = Members.prepare(near.rows, near.positions, projected=near.projected)
        search_block(rows_CD, kept_Q, members, found, projected)
        is_full_Q = found.positions[kept_Q, -1] != NO_POSITION
        has_any_Q = found.positions[kept_Q, 0] != NO_POSITION
        chosen_Q = np.flatnonzero(has_any_Q & ~is_full_Q)
        if len(chosen_Q):
            rows = kept_Q[chosen_Q]
            all_found = TopK(found.sq_distances[rows], found.positions[rows])
            self._merge(start + rows, _only_visited(all_found, seekers, visited_QV[chosen_Q]))
        if is_full_Q.any():
            rows = kept_Q[is_full_Q]
            number_L = np.full(len(self._centroids) + 1, -1, np.int32)
            number_L[lists] = np.arange(len(lists))
            top = TopK.empty(len(rows), self.top.positions.shape[1], bounds_Q[is_full_Q])
            visits = visits_of(number_L[visited_QV[is_full_Q]], len(lists))
            search_lists(near, rows_CD[rows], visits, top, None if projected is None else projected[rows])
            self._merge(start + rows, top)

    def _merge(self, row_Q: Int64, found: TopK) -> None:
        """Merge added rows that were found for some rows of the share into their nearest."""
        if self._grouped is not None:
            found = expand(found, *self._grouped)
        top = self._share.top
        merged = merge([TopK(top.sq_distances[row_Q], top.positions[row_Q]), found])
        top.sq_distances[row_Q], top.positions[row_Q] = merged.sq_distances, merged.positions


def _only_visited(found: TopK, seekers: Seekers, visited_QV: Int32) -> TopK:
    """Leave out the added rows whose home list a row does not visit; unfilled slots come last.

    Args:
        found: [Q, S], among added rows.
        seekers: the added rows, in ascending order of position.
        visited_QV: int32 [Q, V], lists that each row visits.
    """
    exists_QS = found.positions != NO_POSITION
    row_QS = np.searchsorted(seekers.positions, np.where(exists_QS, found.positions, seekers.positions[0]))
    home_QS = seekers.visited[row_QS, 0]
    kept_QS = exists_QS & (home_QS[:, :, None] == visited_QV[:, None, :]).any(axis=2)
    order_QS = np.argsort(~kept_QS, axis=1, kind="stable")
    sq_distances = np.where(kept_QS, found.sq_distances, np.float32(np.inf))
    positions = np.where(kept_QS, found.positions, NO_POSITION)
    return TopK(
        np.take_along_axis(sq_distances, order_QS, axis=1), np.take_along_axis(positions, order_QS, axis=1)
    )


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
