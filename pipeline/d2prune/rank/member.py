"""One worker of the ranking: reads its parts, takes part in the rounds, commits its parts' ranks.

Writes `ranks.parquet` (schemas.RANKS) and `suppressors.parquet` (schemas.SUPPRESSORS) per part,
row-aligned with the parts of embed. N is the number of samples of the worker's partition.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.d2.fixed_point import to_fixed, to_signed_fixed
from d2prune.d2.partition import GraphPartition
from d2prune.parts.files import NEIGHBORS, RANKS, SUPPRESSORS
from d2prune.parts.neighbors import read_graph
from d2prune.rank.features import read_features
from d2prune.rank.job import RankJob
from d2prune.rank.methods import PoolView, SampleMethod, SampleView, find_method
from d2prune.rank.params import Baseline, BaselineParams
from d2prune.rounds.member import PartitionMember
from d2prune.rounds.rows import read_graph_rows
from d2prune.scores.column import add_offset, read_score, shift
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt

Int64s = npt.NDArray[np.int64]

SCORE_OPTION = "score.difficulty"


class RankMember(PartitionMember):
    """One partition of the ranking."""

    def __init__(self, job: RankJob, index: int) -> None:
        """Read the partition's inputs, and its last checkpoint if there is one."""
        self._job = job
        parts, params, owners = job.parts, job.params, job.owners
        numbers = range(job.bounds[index], job.bounds[index + 1])
        self._excluded_N, rows = read_graph_rows(parts, numbers, owners)
        score_N = read_score(parts, numbers, params.difficulty, SCORE_OPTION)
        self._difficulty_N = shift(score_N, job.resolved.offset)
        del score_N
        partition = GraphPartition(
            index,
            np.arange(*owners.bounds(index)),
            *rows,
            to_fixed(self._difficulty_N),
            job.resolved.gamma_forward,
            job.resolved.gamma_reverse,
        )
        del rows
        super().__init__(parts, numbers, owners, partition, store.join(job.checkpoints, f"{index:06d}.npz"))

    def request_uids(self, inbox: Mapping[int, Any]) -> dict[int, Int64s]:
        """Request the uids of suppressors from the partitions that own them."""
        if isinstance(self._job.params, BaselineParams):
            n = self._partition.n_nodes
            self._suppressor_N, self._suppression_N = np.full(n, -1), np.zeros(n, np.int64)
        else:
            self._suppressor_N, self._suppression_N = self._partition.strongest_messages()
        return self.request_targets(self._suppressor_N)

    def commit(self) -> list[Receipt]:
        """Commit the ranks of the partition's parts."""
        columns = [
            self._difficulty_N,
            ~self._excluded_N,
            self._partition.forward_scores(),
            self._selection_scores(),
            self._suppressor_N,
            self._suppression_N,
        ]
        ranks = pa.table(columns, schema=schemas.RANKS)
        return [self._commit_part(part, ranks) for part in self._numbers]

    def _commit_part(self, part: int, ranks: pa.Table) -> Receipt:
        first, stop = (position - self._start for position in self._job.parts.spans.bounds(part))
        rows = slice(first, stop)
        excluded = int(self._excluded_N[rows].sum())
        counters = {
            "ranked": stop - first - excluded,
            "cut_off": excluded,
            "difficulty_zero": int((self._difficulty_N[rows] == 0).sum()),
        }
        dedup = self._job.parts.units("dedup")
        if dedup:
            duplicates = sum(dedup[part].counters[name] for name in ("duplicates", "near_duplicates"))
            counters |= {"cut_off": excluded - duplicates, "duplicates": duplicates}
        uids = pa.table([self._target_uids.of_rows(rows)], schema=schemas.SUPPRESSORS)
        return artifacts.commit_unit(
            self._job.folder,
            self._job.unit_key(part),
            files={RANKS: ranks.slice(first, stop - first), SUPPRESSORS: uids},
            counters=counters,
        )

    def _selection_scores(self) -> Int64s:
        """Return the scores of the chosen method, int64 [N].

        They are 0 for samples that a `PoolMethod` did not rank.
        """
        params = self._job.params
        if not isinstance(params, BaselineParams):
            return self._partition.scores()
        method = find_method(params.baseline.method)
        if isinstance(method, SampleMethod):
            forward_N, position_N = self._partition.forward_scores(), self._partition.own_positions
            view = SampleView(self._read_fixed_score, forward_N, position_N, params.baseline.seed)
            return method.score(view)
        left_P = np.flatnonzero(~self._excluded_N)
        score_N = np.zeros(len(self._excluded_N), np.int64)
        score_N[left_P] = method.score(self._view_pool(params.baseline, left_P))
        return score_N

    def _read_fixed_score(self) -> Int64s:
        """Read the scores again and add the offset: the difficulty is clamped at 0, these are not."""
        job = self._job
        score_N = read_score(job.parts, self._numbers, job.params.difficulty, SCORE_OPTION)
        return to_signed_fixed(add_offset(score_N, job.resolved.offset))

    def _view_pool(self, baseline: Baseline, left_P: Int64s) -> PoolView:
        """Collect what a `PoolMethod` may use; this is the only partition."""
        parts = self._job.parts
        receipts = [parts.receipt(part, NEIGHBORS) for part in self._numbers]
        graph, _ = read_graph(parts.folder(NEIGHBORS), receipts)
        return PoolView(
            self._difficulty_N[left_P].astype(np.float64),
            graph,
            left_P,
            lambda: read_features(parts, baseline.features, baseline.embeddings)[left_P],
            baseline.seed,
        )
