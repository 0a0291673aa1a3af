"""One partition of the pool: owns nodes, holds upper bounds of its ghosts, finalises what it can.

A ghost is a node of another partition that is a neighbour of an own node. The same class serves the
loop in this process (rounds.py) and worker processes. In each round it takes and returns one
`MessageBatch`:

1. `boundary_nodes()` returns, for each adjacent partition, the canonical position and difficulty of
   the nodes that are ghosts there.
2. `start(batch)` takes the boundary nodes of all adjacent partitions, runs the forward pass,
   finalises what it can and returns the first updates.
3. `step(batch)` applies updates, finalises what it can and returns what changed. Repeat until
   `remaining` is 0 in every partition and no message is in flight; then read `scores()`.

Invariant: the value held for a ghost is never below its t, so whatever a partition finalises is
right, however old its information. Messages may be repeated, merged or delayed, but every change
must arrive eventually. That makes recovery simple: construct the partition again, `restore` a
checkpoint of any age (or `start` again without one), and let its adjacent partitions `resend`. No
other partition goes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.d2 import bucket_queue, ghosts, kernel
from d2prune.d2.messages import EMPTY_BATCH, Message, MessageBatch
from d2prune.d2.partition_layout import INDEX_BITS, build_local_graph
from d2prune.d2.waiting_lists import FINAL, NO_NODE
from d2prune.d2.whole_graph import overflow_error
from d2prune.errors import UserError

# Bound of a ghost before its first update, and last value sent before the first: above any value.
_NO_VALUE = np.iinfo(np.int64).max


def node_id(partition: int | NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return node ids: the partition in the upper 32 bits, the index within it in the lower."""
    return (np.asarray(partition, np.int64) << INDEX_BITS) | np.asarray(index, np.int64)


class GraphPartition:
    """State of one partition.

    Attributes:
        partition: number of the partition.
        remaining: own nodes above zero that are not final yet; the others send nothing any more.
        n_nodes: own nodes.
        n_ghosts: neighbours of own nodes that other partitions own.
        n_sent: entries of updates sent so far.
    """

    def __init__(
        self,
        partition: int,
        position: NDArray[np.int64],
        indptr: NDArray[np.int64],
        neighbors: NDArray[np.int64],
        sq_distances: NDArray[np.float32],
        difficulty: NDArray[np.int64],
        gamma_forward: float | None = 1.0,
        gamma_reverse: float = 1.0,
    ) -> None:
        """Lay out ghosts and exports; nothing is exchanged yet.

        Args:
            partition: number of the partition, 0 <= partition < 2**31.
            position: int64 [n], canonical positions of the own nodes, unique in the whole pool;
                they break ties.
            indptr: int64 [n+1].
            neighbors: int64 [e], node ids (`node_id`) of the neighbours; the graph as a whole is
                symmetric.
            sq_distances: float32 [e].
            difficulty: int64 [n], fixed point (`to_fixed`).
            gamma_forward: decay of forward messages; None: no forward pass, so that the reverse pass
                starts from the difficulty.
            gamma_reverse: decay of reverse messages.

        Raises:
            UserError: too many nodes and ghosts for one partition.
        """
        self._graph = build_local_graph(partition, indptr, neighbors, sq_distances)
        self.partition = partition
        self.n_nodes, self.n_ghosts = len(position), self._graph.n_ghosts
        self._gammas = gamma_forward, gamma_reverse
        # Arrays over nodes and ghosts are allocated in `_allocate_state`, when the caller may already
        # have freed what this partition was built from.
        self._position, self._difficulty = position, difficulty
        self._forward = np.empty(0, np.int64)
        self.remaining = self.n_nodes
        self.n_sent = 0

    @property
    def adjacent(self) -> list[int]:
        """Numbers of the partitions that share an edge with this one."""
        return [int(partition) for partition in self._graph.adjacent]

    def boundary_nodes(self) -> MessageBatch:
        """Return what each adjacent partition needs before it can start."""
        nodes = self._graph.export_nodes
        return MessageBatch(
            self._graph.adjacent, self._graph.export_bounds, self._position[nodes], self._difficulty[nodes]
        )

    def start(self, batch: MessageBatch) -> MessageBatch:
        """Run the forward pass and the first round, given all adjacent boundary nodes.

        Raises:
            UserError: a boundary node is missing or unexpected (the graph is not symmetric), or
                overflow.
        """
        self.receive_boundary(batch)
        return self.step(EMPTY_BATCH)

    def receive_boundary(self, batch: MessageBatch) -> None:
        """Do the first half of `start`: the forward pass. `step(EMPTY_BATCH)` does the second.

        A caller that is short of memory frees the batch in between.
        """
        self._check_symmetry(batch)
        gamma = self._gammas[0]
        if gamma is None:
            self._forward = self._difficulty
        else:
            self._forward = np.empty(self.n_nodes, np.int64)
            overflow = kernel.forward_pass(
                *self._graph.rows, gamma,
                np.concatenate([self._difficulty, batch.values]), self._forward, 0, self.n_nodes,
            )  # fmt: skip
            self._check_overflow(overflow)
        self._allocate_state(batch.keys)
        self._value[: self.n_nodes] = self._forward
        self.remaining = int(np.count_nonzero(self._forward > 0))

    def step(self, batch: MessageBatch) -> MessageBatch:
        """Apply updates, finalise all nodes that can be, and return what changed, by destination.

        Raises:
            UserError: overflow of fixed point.
        """
        if not len(batch.keys) and not self._visit_all:
            return EMPTY_BATCH
        self._finalise(self._apply_updates(batch))
        slots, values, starts = ghosts.collect_updates(
            self._graph.export_nodes, self._graph.export_bounds, self._value, self._head, self._last_sent
        )
        self.n_sent += len(slots)
        return MessageBatch(self._graph.adjacent, starts, slots, values) if len(slots) else EMPTY_BATCH

    def resend(self, destination: int) -> Message:
        """Return the current value of every node that is a ghost at a recovered partition."""
        k = int(np.searchsorted(self._graph.adjacent, destination))
        lo, hi = self._graph.export_bounds[k : k + 2]
        self._last_sent[lo:hi] = _NO_VALUE
        slots, values, _ = ghosts.collect_updates(
            self._graph.export_nodes[lo:hi],
            np.array([0, hi - lo]),
            self._value,
            self._head,
            self._last_sent[lo:hi],
        )
        self.n_sent += len(slots)
        return Message(slots, values)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a checkpoint, about 20 bytes a node.

        It holds all that `restore` needs beyond the arguments of the constructor.
        """
        return {
            "position": self._position[self.n_nodes :].copy(),
            "forward": self._forward.copy(),
            "value": self._value.copy(),
            "done": self._head == FINAL,
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Load a checkpoint of this partition, of any age.

        All adjacent partitions must `resend` before the next step.

        Raises:
            UserError: the checkpoint is of a partition of another size.
        """
        n_ghosts = len(state["value"]) - len(state["forward"])
        if len(state["forward"]) != self.n_nodes or n_ghosts != self.n_ghosts:
            raise UserError(
                f"partition {self.partition}: the checkpoint holds {len(state['forward'])} nodes and "
                f"{n_ghosts} ghosts, expected {self.n_nodes} and {self.n_ghosts}"
            )
        self._allocate_state(state["position"])
        self._forward = state["forward"].copy()
        self._value[:] = state["value"]
        # Waiting lists and sent values are not part of a checkpoint: visiting all nodes rebuilds the
        # lists, and sending everything again is harmless. A ghost that was final but not visited yet
        # is sent again by its owner; until then its t is a bound like any other.
        self._head[:] = np.where(state["done"], FINAL, NO_NODE)
        self._ghost_final[:] = state["done"][self.n_nodes :]
        own = slice(0, self.n_nodes)
        self.remaining = int(np.count_nonzero((self._value[own] > 0) & ~state["done"][own]))

    @property
    def own_positions(self) -> NDArray[np.int64]:
        """Canonical positions of the own nodes, int64 [n], in the order of every result."""
        return self._position[: self.n_nodes]

    def scores(self) -> NDArray[np.int64]:
        """Selection scores t of the own nodes, int64 [n]; valid once no partition has any remaining."""
        return self._value[: self.n_nodes].copy()

    def forward_scores(self) -> NDArray[np.int64]:
        """Forward scores x of the own nodes, int64 [n]; valid after `start`."""
        return self._forward

    def strongest_messages(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the largest message that each own node received; valid when `scores` is.

        Returns:
            (canonical position of its sender or -1, its size), int64 [n] each.
        """
        sender, amount = np.empty(self.n_nodes, np.int64), np.empty(self.n_nodes, np.int64)
        kernel.strongest_messages(
            *self._graph.rows, self._gammas[1],
            self._position, self._value, sender, amount, 0, self.n_nodes,
        )  # fmt: skip
        position = self._position[sender]
        position[sender < 0] = -1
        return position, amount

    def nearest_keepers(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the keeper of each own node that a near neighbour drops; see `near_duplicates`.

        Valid when `scores` is, without a forward pass.

        Returns:
            (canonical position of the keeper or -1, squared distance to it or 0), [n] each.
        """
        keeper, sq_distance = np.empty(self.n_nodes, np.int64), np.empty(self.n_nodes, np.float32)
        kernel.nearest_keepers(
            *self._graph.rows, self._position, self._forward, self._value, keeper, sq_distance
        )
        position = self._position[keeper]
        position[keeper < 0] = -1
        return position, sq_distance

    def _allocate_state(self, ghost_position: NDArray[np.int64]) -> None:
        """Allocate the state of own nodes and ghosts, without any value."""
        self._position = np.concatenate([self._position[: self.n_nodes], ghost_position])
        self._value, self._head, self._link = kernel.new_state(len(self._position))
        self._value[:] = _NO_VALUE
        self._ghost_final = np.zeros(self.n_ghosts, np.bool_)
        self._last_sent = np.full(len(self._graph.export_nodes), _NO_VALUE)
        # No node is in a list or on the stack yet, so the next step visits all of them.
        self._visit_all = True

    def _check_symmetry(self, batch: MessageBatch) -> None:
        """Compare the ghosts derived from the own rows with the boundary nodes received."""
        graph = self._graph
        expected = dict(zip(graph.adjacent.tolist(), np.diff(graph.ghost_bounds).tolist(), strict=True))
        received = dict(zip(batch.partitions.tolist(), np.diff(batch.starts).tolist(), strict=True))
        for source in sorted(expected.keys() | received.keys()):
            if expected.get(source, 0) != received.get(source, 0):
                raise UserError(
                    f"graph: not symmetric between partitions {self.partition} and {source}: by the rows of "
                    f"{self.partition}, {expected.get(source, 0)} nodes of {source} have a neighbour in "
                    f"{self.partition}; by the rows of {source}, {received.get(source, 0)} do"
                )

    def _apply_updates(self, batch: MessageBatch) -> int:
        """Apply updates; returns the top of the stack of nodes to visit."""
        graph = self._graph
        first_ghosts = self.n_nodes + graph.ghost_bounds[np.searchsorted(graph.adjacent, batch.partitions)]
        top: int = ghosts.apply_updates(
            batch.keys, batch.values, np.repeat(first_ghosts, np.diff(batch.starts)),
            self._position, self._value, self._head, self._link, self._ghost_final,
        )  # fmt: skip
        return top

    def _finalise(self, top: int) -> None:
        """Finalise all nodes that can be, starting from those on the stack."""
        n = self.n_nodes
        queue = np.empty(n if self._visit_all else 0, np.int32)
        ends = np.zeros(bucket_queue.N_BUCKETS + 1, np.int64)
        if self._visit_all:
            bucket_queue.sort_into_buckets(self._value, self._head, 0, n, queue, ends)
            self._visit_all = False
        finalised, overflow = kernel.finalise_nodes(
            *self._graph.rows, self._gammas[1], self._position, self._value, self._head, self._link,
            0, n, queue, ends, top, False,
        )  # fmt: skip
        self._check_overflow(overflow)
        self.remaining -= finalised

    def _check_overflow(self, overflow: int) -> None:
        if overflow != kernel.NO_OVERFLOW:
            raise overflow_error(int(self._position[overflow]))
