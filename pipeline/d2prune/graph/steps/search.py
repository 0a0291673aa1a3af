"""Steps `assign`, `lists`, `search`: send rows to the partitions whose lists they visit, and search those.

Each partition p receives rows at two destinations: 2 p for rows whose home list is in p, 2 p + 1
for rows that only visit. Rows travel as they are stored (float16) and are normalised on arrival; a
row's bits depend on that row alone, so sender and receiver agree. A unit of the search holds its
partition's members as stored, their projections, and one batch of queries in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import (
    GROUP_MEMBER,
    MEMBERS_OF_GROUPS,
    LocalGroups,
    features_of,
    groups_of,
    local_groups,
    members_of_groups,
    read_part,
)
from d2prune.graph.steps.quantise import CENTROIDS, NPROBE, PARTITIONS
from d2prune.knn.backend import fit_projection, search_probes
from d2prune.knn.block_search import TopK
from d2prune.knn.duplicates import DuplicateGroups, expand
from d2prune.knn.probes import find_probes
from d2prune.knn.projections import ProjectedRows
from d2prune.knn.quantiser import Quantiser
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

VISITORS = "visitors.bin"
CANDIDATES = "candidates.bin"
VISITED = "visited.npy"
LISTS = "lists.npy"
VISITS = "visits"
# Rows of a part converted to float32 at a time.
_BLOCK = 16_384
# Members converted to float32 at a time, to fit the projection and to apply it.
_FIT_ROWS = 2048


def visitor_type(nprobe: int, width: int, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the record of a row sent to a partition; `probes` are -1 for lists of other partitions."""
    return np.dtype(
        [("position", "<i8"), ("is_member", "?"), ("probes", "<i4", (nprobe,)), ("raw", dtype.str, (width,))]
    )


def candidate_type(n_best: int) -> np.dtype[Any]:
    """Return the record of the K nearest rows that a partition found for a query."""
    return np.dtype([("query", "<i8"), ("sq_distances", "<f4", (n_best,)), ("positions", "<i8", (n_best,))])


def send_rows(job: Job, part: int) -> Receipt:
    """Send each distinct row of a part to the partitions it visits."""
    rows = read_part(job, part)
    lists = Quantiser(job.array("quantiser", 0, CENTROIDS))
    partition_L = job.array("layout", 0, PARTITIONS)
    nprobe = job.receipt("layout").facts[NPROBE]
    dtype = visitor_type(nprobe, rows.raw.shape[1], rows.raw.dtype)
    home_Q, visited_QP = np.empty(len(rows.raw), np.int64), np.empty((len(rows.raw), nprobe), np.int32)
    visits_P = np.zeros(job.partitions, np.int64)
    sent = []
    for start in range(0, len(rows.raw), _BLOCK):
        block = slice(start, start + _BLOCK)
        probes_QP = find_probes(lists, features_of(job, rows.raw[block]), nprobe, job.layout.threads)
        partition_QP = np.where(probes_QP >= 0, partition_L[probes_QP], -1)
        home_Q[block], visited_QP[block] = partition_QP[:, 0], probes_QP
        n_rows = len(probes_QP)
        pairs = np.unique((partition_QP * np.int64(n_rows) + np.arange(n_rows)[:, None])[probes_QP >= 0])
        to_V, query_V = np.divmod(pairs, n_rows)
        records = np.empty(len(pairs), dtype)
        records["position"] = rows.positions[block][query_V]
        records["probes"] = np.where(partition_QP[query_V] == to_V[:, None], probes_QP[query_V], -1)
        is_home_V = partition_QP[query_V, 0] == to_V
        records["is_member"] = is_home_V & rows.is_member[block][query_V]
        records["raw"] = rows.raw[block][query_V]
        visits_P += np.bincount(to_V, minlength=job.partitions)
        sent.append((records, 2 * to_V + ~is_home_V))
    if not sent:
        sent.append((np.empty(0, dtype), np.empty(0, np.int64)))

    groups = members_of_groups(job, part)
    home_G = home_Q[np.searchsorted(rows.positions, groups["representative"])]
    files = {
        VISITORS: exchange.pack_batches(sent, 2 * job.partitions),
        MEMBERS_OF_GROUPS: exchange.pack(groups, home_G, job.partitions),
        VISITED: visited_QP,
    }
    facts = {
        "width": rows.raw.shape[1],
        "dtype": rows.raw.dtype.str,
        NPROBE: nprobe,
        VISITS: visits_P.tolist(),
    }
    return job.commit("assign", part, files, facts=facts)


def write_lists(job: Job, part: int) -> Receipt:
    """Write the home list of each row of a part, int32 [N], -1 for rows that are cut off.

    The pool's index (`d2prune index`) is built from it.
    """
    groups = local_groups(job, part)
    return commit_lists(job, part, groups, job.array("assign", part, VISITED)[:, 0])


def commit_lists(job: Job, part: int, groups: LocalGroups, home_Q: Int32) -> Receipt:
    """Commit the `lists` unit of a part, from the home lists of its Q distinct rows."""
    start, stop = job.spans.bounds(part)
    list_N = np.full(stop - start, -1, np.int32)
    if len(groups.kept_N):
        # Groups are numbered in the order of their first rows, as distinct rows are.
        list_N[groups.kept_N] = home_Q[groups.group_N]
    return job.commit("lists", part, {LISTS: list_N})


def search_partition(job: Job, index: int) -> Receipt:
    """Search a partition's lists for the visitors from one slice of the parts.

    Candidates stay in memory until the unit commits, so memory grows with the visitors of a unit;
    slices bound them.
    """
    partition, number = divmod(index, job.slices)
    facts = job.receipt("assign", 0).facts
    visitors = _Visitors(job, visitor_type(facts[NPROBE], facts["width"], np.dtype(facts["dtype"])))
    n_visits = sum(job.receipt("assign", part).facts[VISITS][partition] for part in range(len(job.parts)))
    members = _Members(job, partition, visitors, n_visits // job.slices)
    groups = exchange.read_concatenated(
        job.urls("assign", len(job.parts), MEMBERS_OF_GROUPS), GROUP_MEMBER, partition
    )
    grouped = groups_of(members.positions, groups)
    found, n_queries = [], 0
    parts = job.slice_bounds[number : number + 2]
    for batch in _read_batches(visitors, partition, parts, job.layout.batch_rows):
        candidates = _search_batch(job, members, grouped, batch)
        found.append((candidates, job.spans.part_of(candidates["query"])))
        n_queries += len(candidates)
    if not found:
        found.append((np.empty(0, candidate_type(job.n_best)), np.empty(0, np.int64)))
    files = {CANDIDATES: exchange.pack_batches(found, len(job.parts))}
    return job.commit("search", index, files, {"members": len(members.positions), "queries": n_queries})


class _Visitors:
    """The rows that the parts sent to a destination."""

    def __init__(self, job: Job, dtype: np.dtype[Any]) -> None:
        self.dtype, self._urls = dtype, job.urls("assign", len(job.parts), VISITORS)

    def read(self, destination: int, first: int = 0, stop: int | None = None) -> Iterator[exchange.Records]:
        """Read the rows of the parts [first, stop), part by part."""
        return exchange.read_all(self._urls[first:stop], self.dtype, destination)


class _Members:
    """A partition's members as `lists.ListRows`: stored rows in order of arrival, converted on request."""

    def __init__(self, job: Job, partition: int, visitors: _Visitors, n_queries: int) -> None:
        self._job = job
        partition_L = job.array("layout", 0, PARTITIONS)
        numbers = np.flatnonzero(partition_L == partition)
        self.centroids: Float32 = job.array("quantiser", 0, CENTROIDS)[numbers]
        # Number of a list in the pool -> in this partition; the extra last entry maps -1 to -1.
        self.local = np.full(len(partition_L) + 1, -1, np.int32)
        self.local[numbers] = np.arange(len(numbers))
        homes, positions = [], []
        self._raw = np.empty((0, *visitors.dtype["raw"].shape), visitors.dtype["raw"].base)
        for records in visitors.read(2 * partition):
            chosen = records[records["is_member"]]
            homes.append(self.local[chosen["probes"][:, 0]])
            positions.append(chosen["position"])
            # Grown in place, because concatenating or sorting at the end would hold the rows twice.
            before = len(self._raw)
            self._raw.resize((before + len(chosen), self._raw.shape[1]), refcheck=False)
            self._raw[before:] = chosen["raw"]
        home_M = np.concatenate(homes)
        self._order_M = np.argsort(home_M, kind="stable")
        self.positions: Int64 = np.concatenate(positions)[self._order_M]
        self.indptr = np.searchsorted(home_M[self._order_M], np.arange(len(numbers) + 1))
        n_pairs = n_queries * len(self.positions) // max(1, len(numbers))
        sample = features_of(job, self._raw[:: max(1, len(self._raw) // _FIT_ROWS)])
        self.projection = fit_projection(sample, n_queries + len(self.positions), n_pairs)
        self.projected = self._project_members()

    def read_rows(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop), ordered by list."""
        return features_of(self._job, self._raw[self._order_M[start:stop]])

    def _project_members(self) -> ProjectedRows | None:
        if self.projection is None:
            return None
        n_members = len(self.positions)
        projected = ProjectedRows.empty(n_members, self.projection.width)
        for start in range(0, n_members, _FIT_ROWS):
            stop = min(start + _FIT_ROWS, n_members)
            block = self.projection.project(self.read_rows(start, stop), self._job.layout.threads)
            projected.values[start:stop], projected.errors[start:stop] = block.values, block.errors
        return projected


def _read_batches(
    visitors: _Visitors, partition: int, parts: Sequence[int], batch_rows: int
) -> Iterator[exchange.Records]:
    """Yield the visitors from the parts [first, stop), between one and two times `batch_rows` at a time."""
    waiting: list[exchange.Records] = []
    for destination in (2 * partition, 2 * partition + 1):
        for records in visitors.read(destination, *parts):
            for start in range(0, len(records), batch_rows):
                waiting.append(records[start : start + batch_rows])
                if sum(map(len, waiting)) >= batch_rows:
                    yield np.concatenate(waiting)
                    waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _search_batch(
    job: Job, members: _Members, grouped: tuple[DuplicateGroups, Int64], batch: exchange.Records
) -> exchange.Records:
    """Return the candidates of a batch of queries: the nearest rows, with those that members stand for."""
    probes_QP = members.local[batch["probes"]]
    queries_QD = features_of(job, batch["raw"])
    projected = None
    if members.projection is not None:
        projected = members.projection.project(queries_QD, job.layout.threads)
    top = TopK.empty(len(batch), job.n_best)
    search_probes(members, queries_QD, probes_QP, top, job.layout.threads, projected)
    expanded = expand(top, *grouped)
    out = np.empty(len(batch), candidate_type(job.n_best))
    out["query"] = batch["position"]
    out["sq_distances"], out["positions"] = expanded.sq_distances, expanded.positions
    return out
