"""One partition of the pool: it owns nodes, knows bounds of its neighbours elsewhere, and settles what it can.

The same class serves the loop in this process (rounds.py) and Ray actors. It exchanges a `Mail`
with the other partitions in each round, one array for all of them, and is told what it hears in the
same form:

1. `introduce()` -> each neighbour partition gets the canonical position and difficulty of the nodes it knows;
2. `start(mail)` -> forward pass, first settling; returns the first messages;
3. `step(mail)` -> take in messages, settle, return what changed; until `remaining` is 0 everywhere
and nothing is
   under way. Then `scores()`.

Invariant: what a partition believes of a remote node is never below its t, so what it finalises is right,
however old its information. Messages can be repeated, merged or late; none may be lost for good. So recovery
is simple: build the partition again, `restore` a state of any age (or none: `start` again), and let
its neighbours `resend`; nobody else goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from d2prune.d2 import ghosts, kernel, order
from d2prune.d2.partition_layout import INDEX_BITS, cut_block
from d2prune.d2.whole_graph import overflow_error
from d2prune.errors import UserError

_UNKNOWN = np.iinfo(
    np.int64
).max  # bound of a ghost not heard of; also "nothing sent yet", as no value reaches it


class Letter(NamedTuple):
    """What one partition tells another about the nodes the other has as ghosts, in the order of their slots.

    An introduction: `keys` int64, canonical positions, `values` int64, difficulty; all of them, once.
    Messages: `keys` int32, `values` int64, what changed, 12 bytes an entry: slot k >= 0 is a new
        bound of the k-th
    ghost, ~k its final value.
    """

    keys: NDArray[Any]
    values: NDArray[np.int64]


class Mail(NamedTuple):
    """Letters from or to several partitions: that of `partitions[k]` is entries `starts[k]` to `starts[k + 1]`.

    One array for all, since among a thousand partitions by lot a letter is an entry or two, and an
    object for each took longer than everything else.

    Attributes:
        partitions: int64 [d], ascending, each once.
        starts: int64 [d+1], from 0 to M; a letter may be empty.
        keys: [M], as of `Letter`.
        values: int64 [M].
    """

    partitions: NDArray[np.int64]
    starts: NDArray[np.int64]
    keys: NDArray[Any]
    values: NDArray[np.int64]

    @classmethod
    def of(cls, letters: Mapping[int, Letter]) -> Mail:
        """Letters by partition, as mail."""
        if not letters:
            return NO_MAIL
        partitions = sorted(letters)
        keys, values = ([letters[p][column] for p in partitions] for column in (0, 1))
        starts = np.cumsum([0, *map(len, keys)])
        return cls(np.array(partitions), starts, np.concatenate(keys), np.concatenate(values))

    def letters(self) -> dict[int, Letter]:
        """By partition, without empty ones."""
        bounds = self.starts.tolist()
        return {
            partition: Letter(self.keys[lo:hi], self.values[lo:hi])
            for partition, lo, hi in zip(self.partitions.tolist(), bounds[:-1], bounds[1:], strict=True)
            if lo < hi
        }


NO_MAIL = Mail(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))


def node_id(partition: int | NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The id of a node within a run: its partition in the upper 32 bits, its index there in the lower."""
    return (np.asarray(partition, np.int64) << INDEX_BITS) | np.asarray(index, np.int64)


class GraphPartition:
    """State of one partition.

    Attributes:
        remaining: own nodes above zero that are not final yet (those at or below zero have nothing
            more to say).
        n_nodes: own nodes.
        n_ghosts: remote nodes known here.
        n_sent: message entries sent so far.
    """

    def __init__(
        self,
        partition: int,
        position: NDArray[np.int64],
        indptr: NDArray[np.int64],
        neighbors: NDArray[np.int64],
        sq_distances: NDArray[np.float32],
        difficulty: NDArray[np.int64],
        gamma_forward: float = 1.0,
        gamma_reverse: float = 1.0,
    ) -> None:
        """Lay out ghosts and exports; nothing is exchanged.

        Args:
            partition: number of this partition, 0 <= partition < 2**31.
            position: int64 [n], canonical positions of the own nodes, unique in the whole pool;
                they break ties.
            indptr: int64 [n+1].
            neighbors: int64 [e], node ids (`node_id`) of the neighbours. The graph is symmetric as a whole.
            sq_distances: float32 [e].
            difficulty: int64 [n], fixed point (`to_fixed`).
            gamma_forward: decay of forward messages.
            gamma_reverse: decay of reverse messages.

        Raises:
            UserError: too many nodes and ghosts for one partition.
        """
        self._block = cut_block(partition, indptr, neighbors, sq_distances)
        self.partition = partition
        self.n_nodes, self.n_ghosts = len(position), self._block.n_ghosts
        self._gammas = gamma_forward, gamma_reverse
        # Of ghosts too once they are known (`_begin`): until then who built this holds what it was
        # built from.
        self._position, self._difficulty = position, difficulty
        self._forward = np.empty(0, np.int64)
        self.remaining = self.n_nodes
        self.n_sent = 0

    def _begin(self, ghost_position: NDArray[np.int64]) -> None:
        """Make room for the state of own nodes and ghosts, nothing known of any."""
        self._position = np.concatenate([self._position[: self.n_nodes], ghost_position])
        self._value, self._head, self._link = kernel.new_state(len(self._position))
        self._value[:] = _UNKNOWN
        self._known = np.zeros(self.n_ghosts, np.bool_)
        self._last_sent = np.full(len(self._block.export_nodes), _UNKNOWN)
        self._sweep = True

    def introduce(self) -> Mail:
        """What each neighbour partition needs before it can start."""
        nodes = self._block.export_nodes
        return Mail(
            self._block.sources, self._block.export_bounds, self._position[nodes], self._difficulty[nodes]
        )

    def start(self, mail: Mail) -> Mail:
        """Forward pass and first settling, given the introductions of all neighbour partitions.

        Raises:
            UserError: a neighbour is missing or knows of other edges (the graph is not symmetric),
                or overflow.
        """
        self.meet(mail)
        return self.step(NO_MAIL)

    def meet(self, mail: Mail) -> None:
        """`start` up to the forward pass; the `step` that follows needs the introductions no more."""
        wanted = dict(
            zip(self._block.sources.tolist(), np.diff(self._block.ghost_bounds).tolist(), strict=True)
        )
        met = dict(zip(mail.partitions.tolist(), np.diff(mail.starts).tolist(), strict=True))
        for source in sorted(wanted.keys() | met.keys()):
            if wanted.get(source, 0) != met.get(source, 0):
                raise UserError(
                    f"graph: not symmetric between partitions {self.partition} and {source}: {wanted.get(source, 0)}"
                    f" nodes of {source} have neighbours in {self.partition} by its own rows, {met.get(source, 0)} by"
                    f" those of {source}"
                )
        self._forward = np.empty(self.n_nodes, np.int64)
        overflow = kernel.forward(
            *self._block.rows, self._gammas[0],
            np.concatenate([self._difficulty, mail.values]), self._forward, 0, self.n_nodes,
        )  # fmt: skip
        self._check(overflow)
        self._begin(mail.keys)
        self._value[: self.n_nodes] = self._forward
        self.remaining = int(np.count_nonzero(self._forward > 0))

    def step(self, mail: Mail) -> Mail:
        """Take in messages by source, finalise all that can be, and return what changed by destination.

        Raises:
            UserError: a value left the range of fixed point.
        """
        if not len(mail.keys) and not self._sweep:
            return NO_MAIL
        self._settle(self._receive(mail))
        slots, values, starts = ghosts.collect_changes(
            self._block.export_nodes, self._block.export_bounds, self._value, self._head, self._last_sent
        )
        self.n_sent += len(slots)
        return Mail(self._block.sources, starts, slots, values) if len(slots) else NO_MAIL

    def _receive(self, mail: Mail) -> int:
        """Take in what all sources say; the top of the stack of nodes to look at."""
        first_ghosts = (
            self.n_nodes + self._block.ghost_bounds[np.searchsorted(self._block.sources, mail.partitions)]
        )
        top: int = ghosts.receive(
            mail.keys, mail.values, np.repeat(first_ghosts, np.diff(mail.starts)),
            self._position, self._value, self._head, self._link, self._known,
        )  # fmt: skip
        return top

    def _settle(self, top: int) -> None:
        n = self.n_nodes
        queue, ends = np.empty(n if self._sweep else 0, np.int32), np.zeros(order.N_BUCKETS + 1, np.int64)
        if self._sweep:
            order.sort_into_buckets(self._value, self._head, 0, n, queue, ends)
            self._sweep = False
        settled, overflow = kernel.settle(
            *self._block.rows, self._gammas[1], self._position, self._value, self._head, self._link,
            0, n, queue, ends, top, False,
        )  # fmt: skip
        self._check(overflow)
        self.remaining -= settled

    @property
    def neighbours(self) -> list[int]:
        """Partitions that share an edge with this one."""
        return [int(source) for source in self._block.sources]

    def resend(self, dest: int) -> Letter:
        """All that `dest` may know of this partition's nodes, for one that was restored or started again."""
        k = int(np.searchsorted(self._block.sources, dest))
        lo, hi = self._block.export_bounds[k : k + 2]
        self._last_sent[lo:hi] = _UNKNOWN
        slots, values, _ = ghosts.collect_changes(
            self._block.export_nodes[lo:hi],
            np.array([0, hi - lo]),
            self._value,
            self._head,
            self._last_sent[lo:hi],
        )
        self.n_sent += len(slots)
        return Letter(slots, values)

    def state(self) -> dict[str, NDArray[Any]]:
        """A checkpoint: copies of all that `restore` needs beyond the constructor's arrays, about 20 bytes a node."""
        return {
            "position": self._position[self.n_nodes :].copy(),
            "forward": self._forward.copy(),
            "value": self._value.copy(),
            "done": self._head == order.DONE,
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a checkpoint of this partition, of any age; its neighbours must `resend` before the next step.

        Raises:
            UserError: the state is of a partition of another size.
        """
        if len(state["value"]) != self.n_nodes + self.n_ghosts or len(state["forward"]) != self.n_nodes:
            raise UserError(
                f"partition {self.partition}: the checkpoint holds {len(state['forward'])} nodes and"
                f" {len(state['value']) - len(state['forward'])} ghosts, expected {self.n_nodes} and {self.n_ghosts}"
            )
        self._begin(state["position"])
        self._forward = state["forward"].copy()
        self._value[:] = state["value"]
        # Waiting lists and what was sent are not kept: a sweep rebuilds the first, and telling all
        # again is harmless. A ghost whose turn had not come is told again by its owner; until then
        # its t is a bound like any other.
        self._head[:] = np.where(state["done"], order.DONE, order.NOBODY)
        self._known[:] = state["done"][self.n_nodes :]
        own = slice(0, self.n_nodes)
        self.remaining = int(np.count_nonzero((self._value[own] > 0) & ~state["done"][own]))

    @property
    def own_positions(self) -> NDArray[np.int64]:
        """Canonical positions of the own nodes, int64 [n], in the order of every result."""
        return self._position[: self.n_nodes]

    def scores(self) -> NDArray[np.int64]:
        """Selection scores t of the own nodes, int64 [n]; right once every partition is through."""
        return self._value[: self.n_nodes].copy()

    def forward_scores(self) -> NDArray[np.int64]:
        """Forward scores x of the own nodes, int64 [n]; after `start`."""
        return self._forward

    def strongest_messages(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(canonical position of the node whose message was the largest or -1, that message), int64 [n] each."""
        sender, amount = np.empty(self.n_nodes, np.int64), np.empty(self.n_nodes, np.int64)
        kernel.strongest_message(
            *self._block.rows, self._gammas[1],
            self._position, self._value, sender, amount, 0, self.n_nodes,
        )  # fmt: skip
        position = self._position[sender]
        position[sender < 0] = -1
        return position, amount

    def _check(self, overflow: int) -> None:
        if overflow != kernel.NO_OVERFLOW:
            raise overflow_error(int(self._position[overflow]))
