"""What partitions send one another about the nodes that are ghosts on the other side.

A `Message` goes from one partition to one other. It is not the message of the algorithm, which goes
from one node to another (`fixed_point.message`): each partition computes those itself, from its own
copy of the edge and the values that it is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Message(NamedTuple):
    """One partition's message to another, of either kind.

    - Boundary nodes: `keys` int64, canonical positions; `values` int64, difficulty. Sent once, for
      all nodes that are ghosts at the destination, in the order of their slots there.
    - Updates: `keys` int32, `values` int64, 12 bytes an entry. Key k >= 0: a new upper bound of the
      k-th of those ghosts; ~k: its final value.
    """

    keys: NDArray[Any]
    values: NDArray[np.int64]


class MessageBatch(NamedTuple):
    """Messages from or to several partitions, in shared arrays.

    With a thousand partitions in random order, most messages have an entry or two, and an object
    for each took longer than all other work.

    Attributes:
        partitions: int64 [d], the partitions at the other end, ascending, without repeats.
        starts: int64 [d+1]: entries `starts[k]` to `starts[k + 1]` are the message of
            `partitions[k]`; a message may be empty.
        keys: [M], as in `Message`.
        values: int64 [M], as in `Message`.
    """

    partitions: NDArray[np.int64]
    starts: NDArray[np.int64]
    keys: NDArray[Any]
    values: NDArray[np.int64]

    @classmethod
    def pack(cls, messages: Mapping[int, Message]) -> MessageBatch:
        """Join messages, given by partition."""
        if not messages:
            return EMPTY_BATCH
        partitions = sorted(messages)
        keys, values = ([messages[p][column] for p in partitions] for column in (0, 1))
        starts = np.cumsum([0, *map(len, keys)])
        return cls(np.array(partitions), starts, np.concatenate(keys), np.concatenate(values))

    def unpack(self) -> dict[int, Message]:
        """Return the messages by partition, without empty ones."""
        bounds = self.starts.tolist()
        return {
            partition: Message(self.keys[lo:hi], self.values[lo:hi])
            for partition, lo, hi in zip(self.partitions.tolist(), bounds[:-1], bounds[1:], strict=True)
            if lo < hi
        }


EMPTY_BATCH = MessageBatch(
    np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64)
)
