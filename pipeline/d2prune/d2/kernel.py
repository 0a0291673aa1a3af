"""The kernel: forward pass and reverse pass of D2 over one block of rows, bit-exact in any order of execution.

Arrays in, arrays changed in place; no files, no Ray. A block is n own nodes (0 .. n-1) and g ghosts
(n .. n+g-1): neighbours owned elsewhere, of which an upper bound of t is known, later t itself.
Each has a row; a ghost's row holds its own-node neighbours only. The whole graph is the block
without ghosts. Node indices within a block are int32 where they are stored per node (a block holds
fewer than 2**31 nodes and ghosts); edge offsets are int64 everywhere.

State of a node, side by side in one 16-byte record (`new_state`): `value` int64, x at present (of a
ghost: what its owner says); `head` int32 and `link` int32, see below. Values are in units of 2**-40
(fixed_point.py).

The reverse pass is event-driven. A node that no unfinalised neighbour blocks (order.py) is final: t
is its value, its messages go out, and its head becomes DONE. Any other node waits on one neighbour
that blocks it, and is looked at again only when that neighbour is final or blocks it no more. Nodes
at or below zero send nothing, so nobody waits on them and they need no look: their value is t once
nobody positive is left unfinalised. A ghost whose t is known takes part like an own node, except
that its value is fixed. Invariant at rest: every unfinalised own node above zero waits on an
unfinalised node that blocks it. head[v] starts the list of those waiting on v and link continues
it; the same link chains the stack of nodes to look at and the late nodes of a bucket, as a node is
in one of the three.

A value only ever falls, and whoever is read too early is read too high: a stale read can delay a
node and never finalise it wrongly (proof: docs/algorithm.md). That is why threads may share
`value`, and partitions may work on old bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load, prefetch, store, subtract
from d2prune.d2.fixed_point import LIMIT, message
from d2prune.d2.order import DONE, NOBODY, beats, blocks, new_line, next_batch, wake_all, wake_released

NO_OVERFLOW = -1
# Nodes whose cache misses are met side by side: 16 and 32 measured alike, 8 slower.
_BATCH = 16
_AHEAD = 32

_Int64s = NDArray[np.int64]
_Ints = NDArray[np.signedinteger[Any]]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


def new_state(n: int) -> tuple[_Int64s, _Int32s, _Int32s]:
    """(value, head, link) of n nodes, [n] each: views of one array, so that a node costs one cache miss."""
    records = np.empty((n, 2), np.int64)
    halves = records.view(np.int32)
    halves[:, 2] = NOBODY
    return records[:, 0], halves[:, 2], halves[:, 3]


@kernel
def forward(
    indptr: _Int64s,
    indices: _Ints,
    sq_distances: _Float32s,
    gamma: float,
    s: _Int64s,
    x: _Int64s,
    lo: int,
    hi: int,
) -> int:
    """Paper equation (1): x_i = s_i + sum over neighbours j of exp(-gamma d2_ij) s_j, for rows lo <= i < hi.

    Args:
        indptr: int64 [n+1].
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_forward.
        s: int64 [n+g], difficulty in fixed point.
        x: int64 [n or more], written.
        lo: first row.
        hi: one past the last row.

    Returns:
        NO_OVERFLOW, or the first row whose sum exceeds LIMIT.
    """
    last = len(indices) - 1
    for i in range(lo, hi):
        total = s[i]
        for e in range(indptr[i], indptr[i + 1]):
            # Beyond the row on purpose: hides the cache misses of a pool in random order (measured:
            # 4 times faster).
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
    """Bring what the looks at batch[:m] read into the cache, all misses side by side instead of in a row."""
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
    """The lowest of the neighbours that block u (the one likely to be final last), or NOBODY."""
    blocker = NOBODY
    lowest = np.iinfo(np.int64).max
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        if load(head, v) == DONE:
            continue
        value_v = load(value, v)
        if value_v <= lowest and blocks(value_v, v, value_u, u, position):
            blocker = v
            lowest = value_v
    return blocker


@kernel
def settle(
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
    """Reverse pass (paper equation (2)) over the own nodes lo <= u < hi, to rest: finalise all that can be.

    Args:
        indptr: int64 [n+1], or [n+g+1] with rows of ghosts.
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_reverse.
        position: int64 [n+g] canonical positions, or empty where they are the indices.
        value: int64 [n+g], updated.
        head: int32 [n+g], updated.
        link: int32 [n+g], updated.
        lo: first node, 0 unless shared.
        hi: one past the last node, n unless shared.
        queue: int32 [q], nodes in no list yet, by `sort_into_buckets`.
        ends: int64 [N_BUCKETS + 1], of the queue; all 0 if there is none.
        top: top of a stack of nodes to look at (chained by link), or NOBODY.
        shared: other threads settle other ranges of the same arrays. Then a node blocked from
            outside the range is left for a later call, and rest may be missed where another thread
            lowered a value (whole_graph.py).

    Returns:
        (own nodes that became final or fell to zero or below, NO_OVERFLOW or the node that fell
        below -LIMIT).
    """
    batch = np.empty(_BATCH, np.int32)
    place, late, fill, chunks = new_line(len(queue))
    n_settled = 0
    while True:
        m, top = next_batch(batch, top, queue, ends, place, late, fill, chunks, value, link)
        if m == 0:
            return n_settled, NO_OVERFLOW
        _prefetch_rows(batch, m, indptr, indices, sq_distances, value)
        for k in range(m):
            u = batch[k]
            value_u = load(value, u)
            if value_u <= 0:
                continue
            blocker = _find_blocker(u, value_u, indptr, indices, value, head, position)
            if blocker != NOBODY:
                if not shared or lo <= blocker < hi:
                    link[u] = head[blocker]
                    head[blocker] = u
                continue
            if shared and load(value, u) != value_u:
                # A message came in during the look: look again.
                link[u] = top
                top = u
                continue
            n_settled += u < hi
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                # A ghost's value is what its owner says, nothing else: the owner may have counted
                # u's message already.
                if load(head, v) == DONE or (not shared and v >= hi):
                    continue
                amount = message(value_u, gamma, sq_distances[e])
                before = subtract(value, v, amount) if shared else value[v]
                after = before - amount
                if not shared:
                    value[v] = after
                n_settled += after <= 0 < before
                if after < -LIMIT:
                    return n_settled, v
                if lo <= v < hi and head[v] != NOBODY:
                    top = wake_released(v, after, value, position, head, link, top)
            waiting = head[u]
            # Only now: who reads DONE may rely on u's messages having arrived.
            store(head, u, DONE)
            top = wake_all(waiting, link, top)


@kernel
def strongest_message(
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
    """Who took most from whom, for rows lo <= i < hi: a function of the scores alone, so equal on any partitioning.

    Args:
        indptr: int64 [n+1].
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_reverse.
        position: int64 [n+g] or empty.
        score: int64 [n+g], t of every node and ghost.
        suppressed_by: int64 [n], written: block index of the sender of the largest message (ties:
            the lower canonical position), -1 where no message above zero came.
        suppression: int64 [n], written: that message, 2**-40 units; 0 for none.
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
            if amount > largest or (amount == largest and amount > 0 and beats(0, j, 0, sender, position)):
                sender, largest = j, amount
        suppressed_by[i] = sender
        suppression[i] = largest
