"""The rank stage: difficulty scores on the graph -> one selection score per sample, good for every budget.

Reads the embed artifact's scores and uids and the graph artifact, writes `ranks.parquet` (schemas.RANKS) and
`suppressors.parquet` (schemas.SUPPRESSORS) per input shard, row-aligned with embed's parts.
Partition p owns a run of input shards, so it reads its own parts and no others; how many partitions
there are shows nowhere in the result.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.d2.fixed_point import check_gamma, to_fixed
from d2prune.d2.partition import NO_MAIL, GraphPartition, Letter, Mail
from d2prune.errors import InfrastructureError
from d2prune.execution import Executor, Resources
from d2prune.parts.files import RANKS, SAMPLES, SUPPRESSORS
from d2prune.parts.neighbors import read_graph
from d2prune.rank.methods import Baseline, PoolView
from d2prune.rank.pool import Pool, read_features, read_rows, read_uids
from d2prune.rank.settle import Progress, settle
from d2prune.rank.suppressors import NAMES, Suppressors, answers, questions
from d2prune.scores.column import read_score, shift
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt

log = logging.getLogger(__name__)

SCORE_OPTION = "score.difficulty"
CLOSING = ("ask", "answer", "learn")
"""Exchanges of `RankMember` between the last round and `finish`: the uids of suppressors."""


@dataclass(frozen=True)
class RankParams:
    """What decides the ranking, given graph and embeddings."""

    difficulty: str
    offset: float | Literal["auto"]
    gamma_forward: float
    gamma_reverse: float


@dataclass(frozen=True)
class BaselineParams(RankParams):
    """The same for a method other than d2; a class of its own, so that d2's fingerprints know nothing of it."""

    baseline: Baseline


def resolve_offset(pool: Pool, params: RankParams) -> float:
    """What is added to the score: as given, or minus the pool's lowest.

    Raises:
        UserError: there is no such score, or a value is not finite.
    """
    if params.offset != "auto":
        return params.offset
    lowest = [read_score(pool.embed_folder, [part], params.difficulty, SCORE_OPTION) for part in pool.parts]
    return -float(min(score_M.min() for score_M in lowest if len(score_M)))


def rank(
    pool: Pool, params: RankParams, offset: float, executor: Executor, resources: Resources
) -> list[Receipt]:
    """Rank the pool on up to `resources.workers` partitions.

    Returns:
        One receipt per input shard, in canonical order.

    Raises:
        UserError: a score or gamma that is out of range, or a pool too large for the method.
        InfrastructureError: partitions are lost again and again.
    """
    rows, workers = [receipt.rows(SAMPLES) for receipt in pool.parts], resources.workers
    if isinstance(params, BaselineParams):
        params.baseline.check_size(sum(rows))
        workers = 1 if params.baseline.whole_pool else workers
    bounds = share_parts(rows, workers)
    job = RankJob(pool, params, offset, tuple(bounds))
    group = executor.group(partial(RankMember, job), len(bounds) - 1, resources)
    try:
        receipts = settle(group, finish="finish", closing=CLOSING)
    finally:
        group.close()
    store.delete([file.url for file in store.list_files(job.checkpoints)])
    return [receipt for member in receipts for receipt in member]


def share_parts(rows: Sequence[int], n_partitions: int) -> list[int]:
    """Cut parts into at most `n_partitions` runs of about equal rows.

    Args:
        rows: of each part, P of them, P >= 1.
        n_partitions: at least 1.

    Returns:
        Ascending bounds from 0 to P: partition p owns parts bounds[p] to bounds[p + 1] - 1, at least one.
    """
    ends = np.cumsum(rows)
    targets = ends[-1] * np.arange(1, n_partitions) / n_partitions
    cuts = np.searchsorted(ends, targets, side="left") + 1
    return sorted({0, *cuts.tolist(), len(rows)})


@dataclass(frozen=True)
class RankJob:
    """One ranking: what its members share.

    Attributes:
        pool: where everything lies.
        params: of the stage.
        offset: resolved.
        bounds: partition p owns parts bounds[p] to bounds[p + 1] - 1.
    """

    pool: Pool
    params: RankParams
    offset: float
    bounds: tuple[int, ...]

    @property
    def checkpoints(self) -> str:
        """Folder of the members' checkpoints."""
        identity = artifacts.fingerprint(self.params, self.offset, self.pool.graph_identity, self.bounds)
        return store.join(self.pool.folder, "checkpoints", identity)


class RankMember:
    """One partition: reads its parts, takes part in the rounds, commits its parts' ranks. See `distributed.Member`."""

    def __init__(self, job: RankJob, index: int) -> None:
        """Read the partition, and its last checkpoint if there is one."""
        self._job, self._index, pool, params = job, index, job.pool, job.params
        self._parts = range(job.bounds[index], job.bounds[index + 1])
        receipts = [pool.parts[part] for part in self._parts]
        self._starts = starts = np.cumsum([0, *(receipt.rows(SAMPLES) for receipt in pool.parts)])[
            list(job.bounds)
        ]
        self._cut_off_N, rows = read_rows(pool, self._parts, starts)
        self._difficulty_N = shift(
            read_score(pool.embed_folder, receipts, params.difficulty, SCORE_OPTION), job.offset
        )
        self._partition = GraphPartition(
            index,
            np.arange(starts[index], starts[index + 1]),
            *rows,
            to_fixed(self._difficulty_N),
            check_gamma("select.gamma_forward", params.gamma_forward),
            check_gamma("select.gamma_reverse", params.gamma_reverse),
        )
        del rows
        self._checkpoint = store.join(job.checkpoints, f"{index:06d}.npz")
        self._restored = self._restore()

    def ready(self) -> bool:
        """See `Member.ready`."""
        return self._restored

    def introduce(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Letter]:
        """See `Member.introduce`."""
        return {
            to: letter for to, letter in self._partition.introduce().letters().items() if to in destinations
        }

    def start(self, inbox: Mapping[int, Letter]) -> dict[int, Letter]:
        """See `Member.start`."""
        # Not `GraphPartition.start`: the mail, a copy of the letters, is gone before there is
        # anything to send.
        self._partition.meet(Mail.of(inbox))
        return self._partition.step(NO_MAIL).letters()

    def step(self, inbox: Mapping[int, Letter]) -> dict[int, Letter]:
        """See `Member.step`."""
        return self._partition.step(Mail.of(inbox)).letters()

    def resend(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Letter]:
        """See `Member.resend`."""
        return {to: self._partition.resend(to) for to in self._partition.neighbours if to in destinations}

    def progress(self) -> Progress:
        """See `Member.progress`."""
        partition = self._partition
        return Progress(partition.n_nodes, partition.remaining, partition.n_sent)

    def checkpoint(self) -> None:
        """See `Member.checkpoint`."""
        sink = io.BytesIO()
        np.savez(sink, allow_pickle=False, **self._partition.state())
        try:
            store.write_bytes(self._checkpoint, sink.getvalue())
        except InfrastructureError as error:
            # Only a member that is lost would miss it.
            log.warning("rank: no checkpoint this time (%s)", error)

    def _restore(self) -> bool:
        try:
            data = store.read_bytes(self._checkpoint)
        except FileNotFoundError:
            return False
        with np.load(io.BytesIO(data), allow_pickle=False) as state:
            self._partition.restore(dict(state))
        return True

    def ask(self, inbox: Mapping[int, Any]) -> dict[int, npt.NDArray[np.int64]]:
        """Ask the owners of suppressors for their uids."""
        if isinstance(self._job.params, BaselineParams):
            n = self._partition.n_nodes
            self._suppressor_N, self._suppression_N = np.full(n, -1), np.zeros(n, np.int64)
        else:
            self._suppressor_N, self._suppression_N = self._partition.strongest_messages()
        return questions(self._suppressor_N, self._starts)

    def answer(self, inbox: Mapping[int, npt.NDArray[np.int64]]) -> dict[int, pa.LargeStringArray]:
        """Answer those who ask."""
        uids = read_uids(self._job.pool, self._parts) if inbox else pa.array([], NAMES)
        return answers(inbox, uids, int(self._starts[self._index]))

    def learn(self, inbox: Mapping[int, pa.LargeStringArray]) -> dict[int, Any]:
        """Keep the answers. Where one is missing its sender is lost, and all is asked again."""
        self._suppressors = Suppressors(self._suppressor_N, inbox)
        return {}

    def finish(self) -> list[Receipt]:
        """Commit the ranks of the partition's parts."""
        params, forward_N = self._job.params, self._partition.forward_scores()
        if isinstance(params, BaselineParams):
            score_N = self._baseline_scores(params.baseline, forward_N)
        else:
            score_N = self._partition.scores()
        ranks = pa.table(
            [
                self._difficulty_N,
                ~self._cut_off_N,
                forward_N,
                score_N,
                self._suppressor_N,
                self._suppression_N,
            ],
            schema=schemas.RANKS,
        )
        receipts = []
        start = 0
        for part in self._parts:
            rows = self._job.pool.parts[part].rows(SAMPLES)
            cut_off = int(self._cut_off_N[start : start + rows].sum())
            key = artifacts.unit_key(
                f"{part:08d}", self._job.params, self._job.offset, self._job.pool.graph_identity
            )
            counters = {"ranked": rows - cut_off, "cut_off": cut_off}
            names = pa.table([self._suppressors.uids(slice(start, start + rows))], schema=schemas.SUPPRESSORS)
            files = {RANKS: ranks.slice(start, rows), SUPPRESSORS: names}
            receipts.append(artifacts.commit_unit(self._job.pool.folder, key, files, counters))
            start += rows
        return receipts

    def _baseline_scores(self, baseline: Baseline, forward_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Selection scores by another method; one of the whole pool has only this partition."""
        if not baseline.whole_pool:
            return baseline.per_sample(to_fixed(self._difficulty_N), forward_N, self._partition.own_positions)
        pool = self._job.pool
        left_P = np.flatnonzero(~self._cut_off_N)
        graph, _ = read_graph(pool.graph_folder, pool.graph)
        view = PoolView(
            self._difficulty_N[left_P].astype(np.float64),
            graph,
            left_P,
            lambda: read_features(pool, baseline)[left_P],
            baseline.seed,
        )
        score_N = np.zeros_like(forward_N)
        score_N[left_P] = baseline.of_pool(view)
        return score_N
