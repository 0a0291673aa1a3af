"""Reads the state of a part, kept or added, and the rows that search.

P parts, Q distinct rows of a part, V visited lists, K nearest, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.latest import trained_key
from d2prune.graph.previous import Previous
from d2prune.graph.steps.assign import VISITED
from d2prune.graph.steps.given import check_dimensions
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import (
    GROUP_MEMBER,
    LOCAL_GROUPS,
    RANKED,
    LocalGroups,
    checked_features,
    features_of,
    rank_distinct,
    read_raw,
)
from d2prune.graph.steps.state import PartState, read_ranked_rows, read_state, to_groups
from d2prune.graph.trained import CENTROIDS, open_quantiser, read_trained
from d2prune.knn.duplicates import collapse
from d2prune.knn.probes import find_probes
from d2prune.knn.top_k import TopK
from d2prune.stage import exchange
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

BEREFT_POSITIONS, BEREFT_VISITED, BEREFT_RAW = "positions.npy", "visited.npy", "raw.npy"
# Rows converted to float32 at a time.
_BLOCK = 16_384
# Seekers in memory at a time, as float32.
_BATCH = 2**17


def previous_of(job: Job) -> Previous:
    """The graph that the job starts from."""
    assert job.previous is not None
    return job.previous


def arrive(job: Job, index: int) -> Receipt:
    """Group the rows of an added part, and find the lists they visit.

    Raises:
        UserError: an embedding cannot be normalised, or has other dimensions than the quantiser.
    """
    part = previous_of(job).added[index]
    assert job.given is not None
    trained = read_trained(job.folder, job.given)
    rows_ND = checked_features(job, part)[1]
    check_dimensions(rows_ND.shape[1], trained.centroids)
    groups = collapse(rows_ND)
    rows_QD = rows_ND if len(groups.first_R) == len(rows_ND) else rows_ND[groups.first_R]
    url = artifacts.unit_url(job.folder, trained_key(job.given), CENTROIDS)
    quantiser = open_quantiser(url, lambda: trained.centroids)
    visited_QV = np.empty((len(rows_QD), trained.nprobe), np.int32)
    for start in range(0, len(rows_QD), _BLOCK):
        block = slice(start, start + _BLOCK)
        visited_QV[block] = find_probes(quantiser, rows_QD[block], trained.nprobe, job.layout.threads)
    files = {LOCAL_GROUPS: groups.group_N, VISITED: visited_QV, RANKED: rank_distinct(job, rows_QD)}
    return job.commit("arrive", index, files, facts={"distinct": len(rows_QD)})


def read_ranked(job: Job, part: int) -> tuple[Int64, exchange.Records]:
    """Read the first rows of a part's groups, and its RANKED_ROW records, and nothing else."""
    previous = previous_of(job)
    before = previous.matches[part]
    if before >= 0:
        return read_ranked_rows(job.folder, previous.states[before])
    index = previous.added.index(part)
    return to_groups(job.array("arrive", index, LOCAL_GROUPS)).first_Q, job.array("arrive", index, RANKED)


def read_part_state(job: Job, part: int) -> PartState:
    """Read what is known of a part; the nearest rows of an added one are empty.

    Positions are those of this pool, -1 for rows that were removed.
    """
    previous = previous_of(job)
    before = previous.matches[part]
    if before >= 0:
        state = read_state(job.folder, previous.states[before])
        nearest = previous.renumber(state.top.positions, job.spans)
        return PartState(state.groups, state.visited, TopK(state.top.sq_distances, nearest), state.ranked)
    index = previous.added.index(part)
    groups = to_groups(job.array("arrive", index, LOCAL_GROUPS))
    visited_QV = job.array("arrive", index, VISITED)
    return PartState(
        groups, visited_QV, TopK.empty(len(visited_QV), job.n_best), job.array("arrive", index, RANKED)
    )


def find_bereft(top: TopK) -> Int64:
    """The rows of which a nearest row was removed."""
    return np.flatnonzero((top.positions < 0).any(axis=1))


def collect_bereft(job: Job, share: int) -> Receipt:
    """Collect the bereft rows of the kept parts of a share."""
    previous = previous_of(job)
    positions, visited, raw = [], [], []
    for part in share_parts(job, share):
        if previous.matches[part] < 0:
            continue
        state = read_part_state(job, part)
        bereft = find_bereft(state.top)
        if len(bereft):
            rows = state.groups.first_Q[bereft]
            positions.append(rows + job.starts[part])
            visited.append(state.visited[bereft])
            raw.append(read_raw(job, part)[rows])
    files = {}
    if positions:
        names = (BEREFT_POSITIONS, BEREFT_VISITED, BEREFT_RAW)
        files = {
            name: np.concatenate(arrays)
            for name, arrays in zip(names, (positions, visited, raw), strict=True)
        }
    return job.commit("bereft", share, files, facts={"rows": sum(map(len, positions))})


def share_parts(job: Job, share: int) -> range:
    """The parts of a share."""
    return range(*job.slice_bounds[share : share + 2])


@dataclass(frozen=True)
class Seekers:
    """Rows that are compared with all rows that they meet.

    Attributes:
        positions: int64 [Q].
        visited: int32 [Q, V].
        rows: float32 [Q, D].
        are_added: whether they are added rows, which the kept rows are compared with in turn.
        groups: GROUP_MEMBER records of those that stand for several rows.
    """

    positions: Int64
    visited: Int32
    rows: Float32
    are_added: bool
    groups: exchange.Records


def read_seekers(job: Job) -> Iterator[Seekers]:
    """Yield all seekers in batches, one of them empty if there are none."""
    waiting: list[Seekers] = []
    found = False
    for seekers in _read_added(job):
        waiting.append(seekers)
        found |= len(seekers.positions) > 0
        if sum(len(batch.positions) for batch in waiting) >= _BATCH:
            yield _concatenate(waiting)
            waiting = []
    if waiting:
        yield _concatenate(waiting)
    elif not found:
        rows = features_of(job, read_raw(job, 0)[:0])
        nothing = np.zeros((0, 1), np.int32)
        yield Seekers(np.zeros(0, np.int64), nothing, rows, False, np.zeros(0, GROUP_MEMBER))
    if previous_of(job).removes:
        yield from _read_bereft(job)


def _read_added(job: Job) -> Iterator[Seekers]:
    for part in previous_of(job).added:
        state = read_part_state(job, part)
        raw_ND, start = read_raw(job, part), int(job.starts[part])
        first_Q = state.groups.first_Q
        rows_QD = features_of(job, raw_ND if len(first_Q) == len(raw_ND) else raw_ND[first_Q])
        yield Seekers(
            first_Q + start, state.visited, rows_QD, True, group_members(state.groups, start, job.n_best)
        )


def _read_bereft(job: Job) -> Iterator[Seekers]:
    for share in range(job.slices):
        n_rows = job.receipt("bereft", share).facts["rows"]
        if n_rows:
            positions, visited, raw = (
                job.array("bereft", share, name) for name in (BEREFT_POSITIONS, BEREFT_VISITED, BEREFT_RAW)
            )
            for start in range(0, n_rows, _BATCH):
                block = slice(start, start + _BATCH)
                rows = features_of(job, raw[block])
                yield Seekers(positions[block], visited[block], rows, False, np.zeros(0, GROUP_MEMBER))


def _concatenate(batches: list[Seekers]) -> Seekers:
    if len(batches) == 1:
        return batches[0]
    names = ("positions", "visited", "rows", "groups")
    positions, visited, rows, groups = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in names
    )
    return Seekers(positions, visited, rows, True, groups)


def group_members(groups: LocalGroups, start: int, n_best: int) -> exchange.Records:
    """The GROUP_MEMBER records of a part's groups of several rows, the first `n_best` rows of each."""
    if len(groups.first_Q) == len(groups.group_N):
        return np.zeros(0, GROUP_MEMBER)
    order_N = np.argsort(groups.group_N, kind="stable")
    sizes_Q = np.bincount(groups.group_N, minlength=len(groups.first_Q))
    group_N = groups.group_N[order_N]
    number_N = np.arange(len(order_N)) - (np.cumsum(sizes_Q) - sizes_Q)[group_N]
    listed = (sizes_Q[group_N] > 1) & (number_N < n_best)
    records = np.empty(int(listed.sum()), GROUP_MEMBER)
    records["representative"] = groups.first_Q[group_N[listed]] + start
    records["position"] = groups.kept_N[order_N[listed]] + start
    return records


def read_raw_distinct(job: Job, part: int, groups: LocalGroups) -> NDArray[Any]:
    """Read the distinct rows of a part as they are stored."""
    raw_ND = read_raw(job, part)
    return raw_ND if len(groups.first_Q) == len(raw_ND) else raw_ND[groups.first_Q]
