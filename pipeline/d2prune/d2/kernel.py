"""The forward and reverse pass of D2 over rows of the graph, bit-exact in any order of execution.

Arrays in, arrays changed in place; no files, no Ray. The rows belong to n own nodes (0 .. n-1) and
g ghosts (n .. n+g-1). A ghost stands for a neighbour that another partition owns: its value is an
upper bound of the neighbour's selection score t, and t itself once that is known. A ghost's row
lists only its own-node neighbours. A whole graph is the case without ghosts. Node indices stored
per node are int32 (fewer than 2**31 nodes and ghosts); edge offsets are int64 everywhere.

State of a node, in one 16-byte record (`new_state`): `value` int64, its current x (for a ghost: the
last value its owner sent), in units of 2**-40 (fixed_point.py); `head` int32 and `link` int32, see
waiting_lists.py.

The reverse pass is event-driven. A node that no unfinalised neighbour blocks (precedence.py) is
final: its value is t, its messages are sent and its head becomes FINAL. Any other node waits for
one neighbour that blocks it, and is visited again only when that neighbour is final or no longer
blocks it. Nodes at or below zero send nothing, so no node waits for them and they need no visit:
once no positive node is left, their value is t. A ghost whose t is known takes part like an own
node, except that its value never changes.

Invariant when `finalise_nodes` returns: every unfinalised own node above zero waits for an
unfinalised node that blocks it.

Values only ever fall, so a stale reading is too high: it can delay a node but never finalise it
wrongly (proof: docs/algorithm.md). That is why threads may share `value`, and why partitions may
work with old bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load, prefetch, store, subtract
from d2prune.d2.bucket_queue import new_cursor, next_batch
from d2prune.d2.fixed_point import LIMIT, message
from d2prune.d2.precedence import blocks, precedes
from d2prune.d2.waiting_lists import FINAL, NO_NODE, wake_all, wake_unblocked

NO_OVERFLOW = -1
# Nodes visited per batch, so that their cache misses overlap. 32 is as fast, 8 is slower.
_BATCH = 16
# Edges by which the forward pass prefetches ahead.
_AHEAD = 32

_Int64s = NDArray[np.int64]
_Ints = NDArray[np.signedinteger[Any]]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


def new_state(n: int) -> tuple[_Int64s, _Int32s, _Int32s]:
    """Allocate (value, head, link) of n nodes, [n] each.

    They are views of one array, so that visiting a node costs one cache miss.
    """
    records = np.empty((n, 2), np.int64)
    halves = records.view(np.int32)
    halves[:, 2] = NO_NODE
    return records[:, 0], halves[:, 2], halves[:, 3]


@kernel
def forward_pass(
    indptr: _Int64s,
    indices: _Ints,
    sq_distances: _Float32s,
    gamma: float,
    s: _Int64s,
    x: _Int64s,
    lo: int,
    hi: int,
) -> int:
    """Forward pass over the rows lo <= i < hi (paper equation 1).

    x_i = s_i + sum over neighbours j of exp(-gamma d2_ij) s_j.

    Args:
        indptr: int64 [n+1].
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_forward.
        s: int64 [n+g], difficulty in fixed point.
        x: int64 [n] or longer, written.
        lo: first row.
        hi: one past the last row.

    Returns:
        NO_OVERFLOW, or the first row whose sum exceeds LIMIT.
    """
    last = len(indices) - 1
    for i in range(lo, hi):
        total = s[i]
        for e in range(indptr[i], indptr[i + 1]):
            # Prefetches beyond the row on purpose: on a pool in random order this is 4 times faster.
            prefetch(s, indices[min(e + _AHEAD, last)])
            total += message(s[indices[e]], gamma, sq_distances[e])
            if total > LIMIT:
                return i
        x[i] = total
    return NO_OVERFLOW


@kernel(inline="always")
def _prefetch_rows(
    batch: _Int32s, m: int, indptr: _Int64s, indices: _Int64s, sq_distances: _Float32s, value: _Int64s
) -> None:
    """Prefetch what the visits to batch[:m] read, so that their cache misses overlap."""
    for k in range(m):
        prefetch(indptr, batch[k])
    for k in range(m):
        for e in range(indptr[batch[k]], indptr[batch[k] + 1], 8):
            prefetch(indices, e)
        for e in range(indptr[batch[k]], indptr[batch[k] + 1], 16):
            prefetch(sq_distances, e)
    for k in range(m):
        for e in range(indptr[batch[k]], indptr[batch[k] + 1]):
            prefetch(value, indices[e])


@kernel(inline="always")
def _find_blocker(
    u: int, value_u: int, indptr: _Int64s, indices: _Int64s, value: _Int64s, head: _Int32s, position: _Int64s
) -> int:
    """The neighbour of lowest value that blocks u (likely to be finalised last), or NO_NODE."""
    blocker = NO_NODE
    lowest = np.iinfo(np.int64).max
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        if load(head, v) == FINAL:
            continue
        value_v = load(value, v)
        if value_v <= lowest and blocks(value_v, v, value_u, u, position):
            blocker = v
            lowest = value_v
    return blocker


@kernel
def finalise_nodes(
    indptr: _Int64s,
    indices: _Ints,
    sq_distances: _Float32s,
    gamma: float,
    position: _Int64s,
    value: _Int64s,
    head: _Int32s,
    link: _Int32s,
    lo: int,
    hi: int,
    queue: _Int32s,
    ends: _Int64s,
    top: int,
    shared: bool,
) -> tuple[int, int]:
    """Reverse pass (paper equation 2): finalise every own node lo <= u < hi that can be finalised.

    Args:
        indptr: int64 [n+1], or [n+g+1] with rows of ghosts.
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_reverse.
        position: int64 [n+g], canonical positions; empty: the node indices are the positions.
        value: int64 [n+g], updated.
        head: int32 [n+g], updated.
        link: int32 [n+g], updated.
        lo: first node, 0 unless shared.
        hi: one past the last node, n unless shared.
        queue: int32 [q], nodes that are in no list yet, from `sort_into_buckets`.
        ends: int64 [N_BUCKETS + 1], of the queue; all 0 for an empty queue.
        top: top of the stack of nodes to visit, or NO_NODE.
        shared: whether other threads work on other ranges of the same arrays. If so, a node blocked
            from outside the range, or by one that another thread lowered, may be left for later.

    Returns:
        (own nodes that became final or fell to zero or below, NO_OVERFLOW or the overflowing node).
    """
    batch = np.empty(_BATCH, np.int32)
    cursor, late, fill, chunks = new_cursor(len(queue))
    n_finalised = 0
    while True:
        m, top = next_batch(batch, top, queue, ends, cursor, late, fill, chunks, value, link)
        if m == 0:
            return n_finalised, NO_OVERFLOW
        _prefetch_rows(batch, m, indptr, indices, sq_distances, value)
        for k in range(m):
            u = batch[k]
            value_u = load(value, u)
            if value_u <= 0:
                continue
            blocker = _find_blocker(u, value_u, indptr, indices, value, head, position)
            if blocker != NO_NODE:
                if not shared or lo <= blocker < hi:
                    link[u], head[blocker] = head[blocker], u
                continue
            if shared and load(value, u) != value_u:
                # A message arrived during the visit: visit the node again.
                link[u], top = top, u
                continue
            n_finalised += u < hi
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                # A ghost's owner subtracts u's message itself.
                if load(head, v) == FINAL or (not shared and v >= hi):
                    continue
                amount = message(value_u, gamma, sq_distances[e])
                before = subtract(value, v, amount) if shared else value[v]
                after = before - amount
                if not shared:
                    value[v] = after
                n_finalised += after <= 0 < before
                if after < -LIMIT:
                    return n_finalised, v
                if lo <= v < hi and head[v] != NO_NODE:
                    top = wake_unblocked(v, after, value, position, head, link, top)
            waiting = head[u]
            # Last: a thread that reads FINAL may rely on u's messages having arrived.
            store(head, u, FINAL)
            top = wake_all(waiting, link, top)


@kernel
def strongest_messages(
    indptr: _Int64s,
    indices: _Ints,
    sq_distances: _Float32s,
    gamma: float,
    position: _Int64s,
    score: _Int64s,
    suppressed_by: _Int64s,
    suppression: _Int64s,
    lo: int,
    hi: int,
) -> None:
    """Find the largest message each node received and its sender, for the rows lo <= i < hi.

    The result follows from the scores alone, so it is the same for any partitioning.

    Args:
        indptr: int64 [n+1].
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_reverse.
        position: as for `finalise_nodes`.
        score: int64 [n+g], t of every node and ghost.
        suppressed_by: int64 [n], written: index of the sender of the largest message (ties: the
            lower canonical position); -1 if no message above zero arrived.
        suppression: int64 [n], written: that message in units of 2**-40; 0 if there is none.
        lo: first row.
        hi: one past the last row.
    """
    for i in range(lo, hi):
        sender, largest = -1, 0
        for e in range(indptr[i], indptr[i + 1]):
            j = int(indices[e])
            if not blocks(score[j], j, score[i], i, position):
                continue
            amount = message(score[j], gamma, sq_distances[e])
            if amount > largest or (amount == largest and amount > 0 and precedes(0, j, 0, sender, position)):
                sender, largest = j, amount
        suppressed_by[i] = sender
        suppression[i] = largest


@kernel
def nearest_keepers(
    indptr: _Int64s,
    indices: _Ints,
    sq_distances: _Float32s,
    position: _Int64s,
    key: _Int64s,
    value: _Int64s,
    keeper: _Int64s,
    keeper_sq_distance: _Float32s,
) -> None:
    """Find the nearest node that stays and comes before it, for each of the n own nodes that is dropped.

    Args:
        indptr: int64 [n+1] or longer.
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        position: int64 [n+g], canonical; empty: the node indices are the positions.
        key: int64 [n], values of the own nodes before the pass; 0: the node takes no part.
        value: int64 [n+g], values after the pass.
        keeper: int64 [n], written: index of the keeper, or -1.
        keeper_sq_distance: float32 [n], written: the squared distance to it, or 0.
    """
    for i in range(len(key)):
        keeper[i], keeper_sq_distance[i] = -1, 0.0
        if key[i] <= 0 or value[i] > 0:
            continue
        best = -1
        for e in range(indptr[i], indptr[i + 1]):
            j = int(indices[e])
            # A node that stays keeps its key as its value.
            if value[j] <= 0 or not precedes(value[j], j, key[i], i, position):
                continue
            d = sq_distances[e]
            if (
                best < 0
                or d < keeper_sq_distance[i]
                or (d == keeper_sq_distance[i] and precedes(0, j, 0, best, position))
            ):
                best, keeper_sq_distance[i] = j, d
        keeper[i] = best
