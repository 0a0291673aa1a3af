"""One worker of the ranking: reads its parts, takes part in the rounds, commits its parts' ranks.

Writes `ranks.parquet` (schemas.RANKS) and `suppressors.parquet` (schemas.SUPPRESSORS) per part,
row-aligned with the parts of embed. N is the number of samples of the worker's partition.
"""

import io
import logging
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune import store
from d2prune.d2.fixed_point import to_fixed, to_signed_fixed
from d2prune.d2.messages import EMPTY_BATCH, Message, MessageBatch
from d2prune.d2.partition import GraphPartition
from d2prune.errors import InfrastructureError
from d2prune.parts.files import NEIGHBORS, RANKS, SUPPRESSORS
from d2prune.parts.neighbors import read_graph
from d2prune.rank.distributed_rounds import Progress
from d2prune.rank.inputs import read_features, read_graph_rows, read_uids
from d2prune.rank.job import RankJob
from d2prune.rank.methods import PoolView, SampleMethod, SampleView, find_method
from d2prune.rank.params import Baseline, BaselineParams
from d2prune.rank.suppressors import UID_TYPE, SuppressorUids, answer_requests, make_requests
from d2prune.scores.column import add_offset, read_score, shift
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt

log = logging.getLogger(__name__)

Int64s = npt.NDArray[np.int64]

SCORE_OPTION = "score.difficulty"
UID_EXCHANGES = ("request_uids", "send_uids", "receive_uids")
"""Exchanges of `RankMember` between the last round and `commit`: the uids of suppressors."""


class RankMember:
    """One partition; implements `distributed_rounds.Member` and the closing exchanges."""

    def __init__(self, job: RankJob, index: int) -> None:
        """Read the partition's inputs, and its last checkpoint if there is one."""
        self._job, self._index = job, index
        parts, params = job.parts, job.params
        self._numbers = range(job.bounds[index], job.bounds[index + 1])
        self._owners = job.owners
        self._start, stop = self._owners.bounds(index)
        self._cut_off_N, rows = read_graph_rows(parts, self._numbers, self._owners)
        score_N = read_score(parts, self._numbers, params.difficulty, SCORE_OPTION)
        self._difficulty_N = shift(score_N, job.resolved.offset)
        del score_N
        self._partition = GraphPartition(
            index,
            np.arange(self._start, stop),
            *rows,
            to_fixed(self._difficulty_N),
            job.resolved.gamma_forward,
            job.resolved.gamma_reverse,
        )
        del rows
        self._checkpoint = store.join(job.checkpoints, f"{index:06d}.npz")
        self._restored = self._restore()

    def ready(self) -> bool:
        """See `Member.ready`."""
        return self._restored

    def send_boundary(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Message]:
        """See `Member.send_boundary`."""
        messages = self._partition.boundary_nodes().unpack()
        return {to: message for to, message in messages.items() if to in destinations}

    def start(self, inbox: Mapping[int, Message]) -> dict[int, Message]:
        """See `Member.start`."""
        # In two steps, so that the batch, a copy of the messages, is freed before the first round.
        self._partition.receive_boundary(MessageBatch.pack(inbox))
        return self._partition.step(EMPTY_BATCH).unpack()

    def step(self, inbox: Mapping[int, Message]) -> dict[int, Message]:
        """See `Member.step`."""
        return self._partition.step(MessageBatch.pack(inbox)).unpack()

    def resend(self, inbox: Mapping[int, Any], destinations: tuple[int, ...]) -> dict[int, Message]:
        """See `Member.resend`."""
        return {to: self._partition.resend(to) for to in self._partition.adjacent if to in destinations}

    def progress(self) -> Progress:
        """See `Member.progress`."""
        partition = self._partition
        return Progress(partition.n_nodes, partition.remaining, partition.n_sent)

    def checkpoint(self) -> None:
        """See `Member.checkpoint`."""
        sink = io.BytesIO()
        np.savez(sink, allow_pickle=False, **self._partition.state())
        try:
            store.write_bytes(self._checkpoint, sink.getvalue(), store.Sync.NEVER)
        except InfrastructureError as error:
            # Only needed if this worker is lost, and an older checkpoint serves as well.
            log.warning("rank: partition %d: no checkpoint written: %s", self._index, error)

    def request_uids(self, inbox: Mapping[int, Any]) -> dict[int, Int64s]:
        """Request the uids of suppressors from the partitions that own them."""
        if isinstance(self._job.params, BaselineParams):
            n = self._partition.n_nodes
            self._suppressor_N, self._suppression_N = np.full(n, -1), np.zeros(n, np.int64)
        else:
            self._suppressor_N, self._suppression_N = self._partition.strongest_messages()
        return make_requests(self._suppressor_N, self._owners)

    def send_uids(self, inbox: Mapping[int, Int64s]) -> dict[int, pa.LargeStringArray]:
        """Send the uids that other partitions request."""
        uids = read_uids(self._job.parts, self._numbers) if inbox else pa.array([], UID_TYPE)
        return answer_requests(inbox, uids, self._start)

    def receive_uids(self, inbox: Mapping[int, pa.LargeStringArray]) -> dict[int, Any]:
        """Store the uids received."""
        self._suppressor_uids = SuppressorUids(self._suppressor_N, inbox)
        return {}

    def commit(self) -> list[Receipt]:
        """Commit the ranks of the partition's parts."""
        columns = [
            self._difficulty_N,
            ~self._cut_off_N,
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
        cut_off = int(self._cut_off_N[rows].sum())
        uids = pa.table([self._suppressor_uids.of_rows(rows)], schema=schemas.SUPPRESSORS)
        return artifacts.commit_unit(
            self._job.folder,
            self._job.unit_key(part),
            files={RANKS: ranks.slice(first, stop - first), SUPPRESSORS: uids},
            counters={
                "ranked": stop - first - cut_off,
                "cut_off": cut_off,
                "difficulty_zero": int((self._difficulty_N[rows] == 0).sum()),
            },
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
        left_P = np.flatnonzero(~self._cut_off_N)
        score_N = np.zeros(len(self._cut_off_N), np.int64)
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

    def _restore(self) -> bool:
        """Load the last checkpoint; False if there is none, or it is damaged."""
        try:
            data = store.read_bytes(self._checkpoint)
        except FileNotFoundError:
            return False
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                state = dict(file)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("%s: damaged checkpoint, ignored (%s)", store.redact(self._checkpoint), error)
            return False
        self._partition.restore(state)
        return True
