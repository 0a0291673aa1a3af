"""One worker of the dedup stage: finds the near-duplicates of its partition, commits its parts' tables.

Writes `duplicates.parquet` (schemas.DUPLICATES) and `neighbors.parquet` (schemas.NEIGHBORS), the graph
without the samples that are dropped, per part, row-aligned with the parts of embed. Only near edges
take part in the rounds. Exact copies have a value of 0 from the start: they block no sample and send
nothing. N is the number of samples of the worker's partition.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.d2.near_duplicates import GAMMA, max_sq_distance, select_edges
from d2prune.d2.partition import GraphPartition
from d2prune.d2.partition_layout import sort_distinct
from d2prune.dedup.copies import read_copies
from d2prune.dedup.job import DedupJob
from d2prune.knn.csr import Graph
from d2prune.parts.files import DUPLICATES, NEIGHBORS
from d2prune.parts.neighbors import read_graph, to_table
from d2prune.rounds.member import UID_EXCHANGES, PartitionMember
from d2prune.rounds.rows import read_graph_rows
from d2prune.rounds.uids import make_requests
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt

Int64s = npt.NDArray[np.int64]

CLOSING = ("request_keepers", "send_keepers", *UID_EXCHANGES, "send_dropped", "receive_dropped")
"""Exchanges between the last round and `commit`."""

_NO_EDGES = np.float32(-1)


class DedupMember(PartitionMember):
    """One partition of the pool."""

    def __init__(self, job: DedupJob, index: int) -> None:
        """Read the partition's inputs, and its last checkpoint if there is one."""
        self._job = job
        parts, owners, near = job.parts, job.owners, job.params.near
        numbers = range(job.bounds[index], job.bounds[index + 1])
        start, stop = owners.bounds(index)
        limit = _NO_EDGES if near is None else max_sq_distance(near)
        cut_off_N, rows = read_graph_rows(parts, numbers, owners, limit)
        self._copy_of_N = np.full(stop - start, -1)
        for part in numbers:
            copies = read_copies(job, part)
            self._copy_of_N[copies["position"] - start] = copies["keeper"]
        key_N = np.where(cut_off_N | (self._copy_of_N >= 0), 0, job.read_keys(numbers))
        partition = GraphPartition(index, np.arange(start, stop), *rows, key_N, None, GAMMA)
        del rows
        super().__init__(parts, numbers, owners, partition, store.join(job.checkpoints, f"{index:06d}.npz"))

    def request_keepers(self, inbox: Mapping[int, Any]) -> dict[int, Int64s]:
        """Ask whether the samples that stay in place of exact copies are near-duplicates themselves."""
        self._keeper_N, self._sq_distance_N = self._partition.nearest_keepers()
        return make_requests(self._copy_of_N, self._owners)

    def send_keepers(self, inbox: Mapping[int, Int64s]) -> dict[int, Int64s]:
        """Send the keepers of own samples that other partitions ask about, or the samples if they stay."""
        return {source: self._find_final(position_W) for source, position_W in inbox.items()}

    def _find_final(self, position_W: Int64s) -> Int64s:
        keeper_W = self._keeper_N[position_W - self._start]
        return np.where(keeper_W >= 0, keeper_W, position_W)

    def request_uids(self, inbox: Mapping[int, Int64s]) -> dict[int, Int64s]:
        """Request the uids of all keepers from the partitions that own them."""
        is_copy_N = self._copy_of_N >= 0
        copied_C = self._copy_of_N[is_copy_N]
        asked_W = sort_distinct(copied_C.copy())
        answers = [np.zeros(0, np.int64), *(inbox[owner] for owner in sorted(inbox))]
        keeper_N = self._keeper_N.copy()
        keeper_N[is_copy_N] = np.concatenate(answers)[np.searchsorted(asked_W, copied_C)]
        return self.request_targets(keeper_N)

    def send_dropped(self, inbox: Mapping[int, Any]) -> dict[int, Int64s]:
        """Send the dropped samples to the partitions that hold edges to them."""
        owners, positions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for part in self._numbers:
            graph, _ = self._read_part(part)
            first = self._parts.spans.bounds(part)[0]
            row_E = np.repeat(np.arange(graph.n_nodes) + first, np.diff(graph.indptr))
            is_gone_E = self._target_N[row_E - self._start] >= 0
            owner_E, position_E = self._owners.part_of(graph.indices[is_gone_E]), row_E[is_gone_E]
            # Within a row, neighbours and therefore their owners are ascending.
            is_new_E = np.ones(len(owner_E), bool)
            is_new_E[1:] = (owner_E[1:] != owner_E[:-1]) | (position_E[1:] != position_E[:-1])
            owners.append(owner_E[is_new_E])
            positions.append(position_E[is_new_E])
        owner_D, position_D = np.concatenate(owners), np.concatenate(positions)
        order = np.argsort(owner_D, kind="stable")
        bounds = np.searchsorted(owner_D[order], np.arange(self._owners.n_parts + 1)).tolist()
        return {
            owner: position_D[order[lo:hi]]
            for owner, (lo, hi) in enumerate(itertools.pairwise(bounds))
            if lo < hi
        }

    def receive_dropped(self, inbox: Mapping[int, Int64s]) -> dict[int, Any]:
        """Store the dropped samples among the neighbours of own ones."""
        # Sources own ascending ranges of positions.
        self._gone_W = np.concatenate([np.zeros(0, np.int64), *(inbox[source] for source in sorted(inbox))])
        return {}

    def commit(self) -> list[Receipt]:
        """Commit the tables of the partition's parts."""
        return [self._commit_part(part) for part in self._numbers]

    def _commit_part(self, part: int) -> Receipt:
        first, stop = self._parts.spans.bounds(part)
        rows = slice(first - self._start, stop - self._start)
        keeper_M, is_copy_M = self._target_N[rows], self._copy_of_N[rows] >= 0
        is_dropped_M = keeper_M >= 0
        is_near_M = is_dropped_M & ~is_copy_M
        graph, cut_off_M = self._read_part(part)
        row_E = np.repeat(np.arange(stop - first), np.diff(graph.indptr))
        is_left_E = ~is_dropped_M[row_E] & ~_contains(self._gone_W, graph.indices)
        left = Graph(*select_edges(graph.indptr, graph.indices, graph.sq_distances, is_left_E))
        reason_M = np.where(is_near_M, schemas.NEAR_DUPLICATE, schemas.DUPLICATE)
        columns = [
            is_dropped_M,
            pa.array(reason_M, pa.string(), mask=~is_dropped_M),
            keeper_M,
            self._target_uids.of_rows(rows),
            np.where(is_dropped_M, keeper_M, np.arange(first, stop)),
            pa.array(self._sq_distance_N[rows], mask=~is_near_M),
        ]
        counters = {
            "nodes": stop - first,
            "edges": int((left.indices > np.repeat(np.arange(first, stop), np.diff(left.indptr))).sum()),
            "cut_off": int(cut_off_M.sum()),
            "duplicates": int(is_copy_M.sum()),
            "near_duplicates": int(is_near_M.sum()),
            "unique": stop - first - int((is_dropped_M | cut_off_M).sum()),
        }
        files = {
            DUPLICATES: pa.table(columns, schema=schemas.DUPLICATES),
            NEIGHBORS: to_table(left, cut_off_M | is_dropped_M),
        }
        return artifacts.commit_unit(self._job.folder, self._job.unit_key(part), files, counters)

    def _read_part(self, part: int) -> tuple[Graph, npt.NDArray[np.bool_]]:
        """Read a part's rows of the whole graph again, so that memory holds one part's at a time."""
        return read_graph(self._parts.folder(NEIGHBORS), [self._parts.receipt(part, NEIGHBORS)])


def _contains(sorted_W: Int64s, position_E: Int64s) -> npt.NDArray[np.bool_]:
    """Return which positions are among some that are sorted, bool [E]."""
    index_E = np.searchsorted(sorted_W, position_E)
    found_E: npt.NDArray[np.bool_] = np.append(sorted_W, -1)[index_E] == position_E
    return found_E
