"""Step `search`: compare the rows at home in a partition with each other and with those that visit them.

A unit holds the rows at home in its partition as stored, their projections, and one batch of queries in
float32. Rows take each other: a row at home finds its visitors, too.
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
from d2prune.knn.block_search import Offers
from d2prune.knn.duplicates import DuplicateGroups, expand
from d2prune.knn.projections import ProjectedRows
from d2prune.knn.top_k import NO_POSITION, TopK
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
    """Search a partition for the rows of one slice of the parts, at home or visiting.

    A row at home takes the visitors of each slice, so units of all slices may find some for it.
    Candidates stay in memory until the unit commits, so memory grows with the visitors of a unit;
    slices bound them.
    """
    partition, number = divmod(index, job.slices)
    visitors = Visitors(job, partition)
    home = _RowsAtHome(job, visitors, job.visitors[partition] // job.slices)
    groups = groups_of(
        exchange.read_concatenated(
            job.urls("assign", len(job.parts), MEMBERS_OF_GROUPS), GROUP_MEMBER, partition
        )
    )
    found = []
    parts = job.slice_bounds[number : number + 2]
    top = _search_home(job, home, *job.starts[parts])
    n_queries = len(home.own)
    for batch in visitors.read_batches(parts, job.layout.batch_rows):
        found.append(_candidates(job, batch["position"], _search_batch(job, home, top, batch), groups))
        n_queries += len(batch)
    found.append(_candidates(job, home.own, top, groups))
    files = {
        CANDIDATES: exchange.pack_batches(
            [(records, job.spans.part_of(records["query"])) for records in found], len(job.parts)
        )
    }
    return job.commit("search", index, files, {"at_home": len(home.own), "queries": n_queries})


class _RowsAtHome:
    """The rows at home in a partition, a `lists.ListRows`: stored in order of arrival, converted on request.

    Attributes:
        own: int64 [M], canonical positions.
        positions: int64 [M], the same, NO_POSITION for rows that repeat a member.
        probes: [M, P], lists of the partition that each row visits, -1 for none.
    """

    def __init__(self, job: Job, visitors: Visitors, n_queries: int) -> None:
        self._job = job
        n_lists = len(visitors.lists)
        self.centroids: Float32 = job.array("quantiser", 0, CENTROIDS)[visitors.lists]
        fields = np.dtype([(name, visitors.dtype[name]) for name in ("position", "is_member", "probes")])
        arrived = [np.empty(0, fields)]
        self._raw = np.empty((0, *visitors.dtype["raw"].shape), visitors.dtype["raw"].base)
        for records in visitors.read_at_home():
            arrived.append(records[list(fields.names or ())].astype(fields))
            # Grown in place, because concatenating or sorting at the end would hold the rows twice.
            before = len(self._raw)
            self._raw.resize((before + len(records), self._raw.shape[1]), refcheck=False)
            self._raw[before:] = records["raw"]
        rows_M = np.concatenate(arrived)
        self._order_M = np.argsort(rows_M["probes"][:, 0], kind="stable")
        rows_M = rows_M[self._order_M]
        self.own: Int64 = rows_M["position"].copy()
        self.positions: Int64 = np.where(rows_M["is_member"], self.own, NO_POSITION)
        self.probes = rows_M["probes"]
        self.indptr = np.searchsorted(self.probes[:, 0], np.arange(n_lists + 1))
        # A visitor visits several of the partition's lists: nprobe lists in all partitions together.
        lists_of_visitor = job.nprobe * job.members[-1] / max(1, sum(job.visitors))
        n_pairs = round(n_queries * lists_of_visitor * len(self.own) / max(1, n_lists))
        sample = features_of(job, self._raw[:: max(1, len(self._raw) // _FIT_ROWS)])
        self.projection = fit_projection(sample, n_queries + len(self.own), n_pairs)
        self.projected = self._project()

    def read_rows(self, start: int, stop: int) -> Float32:
        """Return the rows [start, stop), ordered by list."""
        return features_of(self._job, self._raw[self._order_M[start:stop]])

    def _project(self) -> ProjectedRows | None:
        if self.projection is None:
            return None
        n_rows = len(self.own)
        projected = ProjectedRows.empty(n_rows, self.projection.width)
        for start in range(0, n_rows, _FIT_ROWS):
            stop = min(start + _FIT_ROWS, n_rows)
            block = self.projection.project(self.read_rows(start, stop), self._job.layout.threads)
            projected.values[start:stop], projected.errors[start:stop] = block.values, block.errors
        return projected


def _search_home(job: Job, home: _RowsAtHome, first: int, stop: int) -> TopK:
    """Compare the rows at home with each other; return what those at the positions [first, stop) found.

    The others keep no more than a bound: units of their own slices find the same among the rows at home.
    """
    top, n_rows, threads = TopK.empty(len(home.own), job.n_best), len(home.own), job.layout.threads
    is_other_M = (home.own < first) | (home.own >= stop)
    visits_M = np.where(is_other_M[:, None], -1, home.probes[:, 1:]).astype(np.int32)
    for probes_MP, offers in ((home.probes[:, :1].astype(np.int32), False), (visits_M, True)):
        for start in range(0, n_rows, job.layout.batch_rows):
            block = slice(start, start + job.layout.batch_rows)
            search_probes(
                home,
                home.read_rows(block.start, block.stop),
                probes_MP[block],
                top[block],
                threads,
                None if home.projected is None else home.projected[block],
                Offers(home.positions[block], top) if offers else None,
            )
        if not offers:
            top.sq_distances[is_other_M] = top.sq_distances[is_other_M, -1:]
            top.positions[is_other_M] = NO_POSITION
    return top


def _search_batch(job: Job, home: _RowsAtHome, home_top: TopK, batch: exchange.Records) -> TopK:
    """Let a batch of visitors and the rows at home take each other; return what the visitors found."""
    queries_QD = features_of(job, batch["raw"])
    projected = None
    if home.projection is not None:
        projected = home.projection.project(queries_QD, job.layout.threads)
    top = TopK.empty(len(batch), job.n_best)
    offers = Offers(np.where(batch["is_member"], batch["position"], NO_POSITION), home_top)
    search_probes(
        home, queries_QD, batch["probes"].astype(np.int32), top, job.layout.threads, projected, offers
    )
    return top


def _candidates(job: Job, own_Q: Int64, top: TopK, groups: tuple[DuplicateGroups, Int64]) -> exchange.Records:
    """Return what rows found, with the rows that members stand for; rows that found none are left out."""
    found = top.positions[:, 0] != NO_POSITION
    expanded = expand(top[found], *groups)
    out = np.empty(len(expanded.positions), candidate_type(job.n_best))
    out["query"] = own_Q[found]
    out["sq_distances"], out["positions"] = expanded.sq_distances, expanded.positions
    return out
