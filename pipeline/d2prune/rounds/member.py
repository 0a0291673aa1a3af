"""One member of the rounds: a partition of the stored graph, its checkpoint, and the uids it asks for."""

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
from d2prune.d2.messages import EMPTY_BATCH, Message, MessageBatch
from d2prune.d2.partition import GraphPartition
from d2prune.errors import InfrastructureError
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.rounds.group import Progress
from d2prune.rounds.uids import UID_TYPE, TargetUids, answer_requests, make_requests, read_uids

log = logging.getLogger(__name__)

Int64s = npt.NDArray[np.int64]

UID_EXCHANGES = ("request_uids", "send_uids", "receive_uids")
"""Exchanges between the last round and `commit`: the uids of the samples that own samples refer to."""


class PartitionMember:
    """Implements `group.Member` and the exchange of uids; N own samples.

    A subclass sets `_target_N` in `request_uids` and reads `_target_uids` when it commits.
    """

    def __init__(
        self, parts: Parts, numbers: range, owners: Spans, partition: GraphPartition, checkpoint: str
    ) -> None:
        """Load the last checkpoint, if there is one.

        Args:
            parts: the pool.
            numbers: of the own parts.
            owners: canonical positions of each member.
            partition: the own nodes.
            checkpoint: URL of the member's checkpoint.
        """
        self._parts, self._numbers, self._owners = parts, numbers, owners
        self._start = owners.bounds(partition.partition)[0]
        self._partition, self._checkpoint = partition, checkpoint
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
            log.warning("partition %d: no checkpoint written: %s", self._partition.partition, error)

    def request_targets(self, target_N: Int64s) -> dict[int, Int64s]:
        """Request the uids of some samples from the members that own them.

        Args:
            target_N: int64 [N], canonical positions; -1: none.
        """
        self._target_N = target_N
        return make_requests(target_N, self._owners)

    def send_uids(self, inbox: Mapping[int, Int64s]) -> dict[int, pa.LargeStringArray]:
        """Send the uids that other partitions request."""
        uids = read_uids(self._parts, self._numbers) if inbox else pa.array([], UID_TYPE)
        return answer_requests(inbox, uids, self._start)

    def receive_uids(self, inbox: Mapping[int, pa.LargeStringArray]) -> dict[int, Any]:
        """Store the uids received."""
        self._target_uids = TargetUids(self._target_N, inbox)
        return {}

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
