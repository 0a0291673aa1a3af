"""Step `search`: search the lists of a partition for the rows that visit them.

A unit holds its partition's members as stored, their projections, and one batch of queries in
float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import GROUP_MEMBER, MEMBERS_OF_GROUPS, features_of, groups_of
from d2prune.graph.steps.quantise import CENTROIDS
from d2prune.graph.steps.send import Visitors
from d2prune.knn.backend import fit_projection, search_probes
from d2prune.knn.block_search import TopK
from d2prune.knn.duplicates import DuplicateGroups, expand
from d2prune.knn.projections import ProjectedRows
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

CANDIDATES = "candidates.bin"
# Members converted to float32 at a time, to fit the projection and to apply it.
_FIT_ROWS = 2048


def candidate_type(n_best: int) -> np.dtype[Any]:
    """Return the record of the K nearest rows that a partition found for a query."""
    return np.dtype([("query", "<i8"), ("sq_distances", "<f4", (n_best,)), ("positions", "<i8", (n_best,))])


def search_partition(job: Job, index: int) -> Receipt:
    """Search a partition's lists for the visitors from one slice of the parts.

    Candidates stay in memory until the unit commits, so memory grows with the visitors of a unit;
    slices bound them.
    """
    partition, number = divmod(index, job.slices)
    visitors = Visitors(job, partition)
    members = _Members(job, visitors, job.visitors[partition] // job.slices)
    groups = exchange.read_concatenated(
        job.urls("assign", len(job.parts), MEMBERS_OF_GROUPS), GROUP_MEMBER, partition
    )
    grouped = groups_of(members.positions, groups)
    found, n_queries = [], 0
    parts = job.slice_bounds[number : number + 2]
    for batch in visitors.read_batches(parts, job.layout.batch_rows):
        candidates = _search_batch(job, members, grouped, batch)
        found.append((candidates, job.spans.part_of(candidates["query"])))
        n_queries += len(candidates)
    if not found:
        found.append((np.empty(0, candidate_type(job.n_best)), np.empty(0, np.int64)))
    files = {CANDIDATES: exchange.pack_batches(found, len(job.parts))}
    return job.commit("search", index, files, {"members": len(members.positions), "queries": n_queries})


class _Members:
    """A partition's members as `lists.ListRows`: stored rows in order of arrival, converted on request."""

    def __init__(self, job: Job, visitors: Visitors, n_queries: int) -> None:
        self._job = job
        n_lists = len(visitors.lists)
        self.centroids: Float32 = job.array("quantiser", 0, CENTROIDS)[visitors.lists]
        homes, positions = [], []
        self._raw = np.empty((0, *visitors.dtype["raw"].shape), visitors.dtype["raw"].base)
        for records in visitors.read_at_home():
            chosen = records[records["is_member"]]
            homes.append(chosen["probes"][:, 0])
            positions.append(chosen["position"])
            # Grown in place, because concatenating or sorting at the end would hold the rows twice.
            before = len(self._raw)
            self._raw.resize((before + len(chosen), self._raw.shape[1]), refcheck=False)
            self._raw[before:] = chosen["raw"]
        home_M = np.concatenate(homes)
        self._order_M = np.argsort(home_M, kind="stable")
        self.positions: Int64 = np.concatenate(positions)[self._order_M]
        self.indptr = np.searchsorted(home_M[self._order_M], np.arange(n_lists + 1))
        # A visitor visits several of the partition's lists: nprobe lists in all partitions together.
        lists_of_visitor = job.nprobe * job.members[-1] / max(1, sum(job.visitors))
        n_pairs = round(n_queries * lists_of_visitor * len(self.positions) / max(1, n_lists))
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


def _search_batch(
    job: Job, members: _Members, grouped: tuple[DuplicateGroups, Int64], batch: exchange.Records
) -> exchange.Records:
    """Return the candidates of a batch of queries: the nearest rows, with those that members stand for."""
    probes_QP = batch["probes"].astype(np.int32)
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
