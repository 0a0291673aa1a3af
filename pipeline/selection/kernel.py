"""The kernel: forward pass and reverse pass of D2 over one block of rows, bit-exact in any order of execution.

Arrays in, arrays changed in place; no files, no Ray. A block is n own nodes (0 .. n-1) and g ghosts (n .. n+g-1):
neighbours owned elsewhere, of which an upper bound of t is known, later t itself. Each has a row; a ghost's row
holds its own-node neighbours only. The whole graph is the block without ghosts. Node indices within a block are int32
where they are stored per node (a block holds fewer than 2**31 nodes and ghosts); edge offsets are int64 everywhere.

Legend: `value` int64 [n+g] is the current value x (what its owner says of a ghost), FINAL once the node is picked and
its messages are sent; `score` int64 [n+g] receives t (of a ghost: t once known, FINAL until then). All in units of
2**-40 (fixed_point.py). u *beats* v when (value, earlier canonical position) of u is greater.

The reverse pass is event-driven. A node that beats all its unfinalised neighbours is final: t is its value, its
messages go out. Any other node waits on one neighbour that beats it, and is looked at again only when that neighbour
is final or no longer beats it. A ghost whose t is known takes part like an own node, except that its value is fixed.
Invariant at rest: every unfinalised own node waits on an unfinalised node that beats it, so nothing more can be
finalised here. `head` and `link` int32 [n+g] hold the lists: link chains the nodes waiting on v from head[v], and the
same link chains the stack of nodes to look at, as a node is never in both.

A value only ever falls, and whoever is read too early is read too high: a stale read can delay a node and never
finalise it wrongly (proof: docs/algorithm.md). That is why threads may share `value`, and partitions may work on old
bounds.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.selection.atomics import load, prefetch, store, subtract
from pipeline.selection.fixed_point import LIMIT, message

FINAL = np.iinfo(np.int64).min
NOBODY = -1  # end of a list
NO_OVERFLOW = -1

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def forward(
    indptr: _Int64s, indices: _Int64s, sq_distances: _Float32s, gamma: float, s: _Int64s, x: _Int64s, lo: int, hi: int
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
    for i in range(lo, hi):
        total = s[i]
        for e in range(indptr[i], indptr[i + 1]):
            total += message(s[indices[e]], gamma, sq_distances[e])
            if total > LIMIT:
                return i
        x[i] = total
    return NO_OVERFLOW


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _beats(value_u: int, u: int, value_v: int, v: int, position: _Int64s) -> bool:
    """Whether u beats v. `position` int64 [n+g]: canonical positions; empty: the indices themselves."""
    if value_u != value_v:
        return bool(value_u > value_v)
    if len(position) == 0:
        return u < v
    return bool(position[u] < position[v])


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def wake_beaten(v: int, value: _Int64s, position: _Int64s, head: _Int32s, link: _Int32s, top: int) -> int:
    """The value of v fell: move those who wait on it and are no longer beaten to the stack. Returns the new top."""
    value_v = load(value, v)
    kept = NOBODY
    w = head[v]
    while w != NOBODY:
        following = link[w]
        if _beats(value_v, v, load(value, w), w, position):
            link[w] = kept
            kept = w
        else:
            link[w] = top
            top = w
        w = following
    head[v] = kept
    return top


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def wake_all(u: int, head: _Int32s, link: _Int32s, top: int) -> int:
    """U is final: move all who wait on it to the stack. Returns the new top."""
    w = head[u]
    head[u] = NOBODY
    while w != NOBODY:
        following = link[w]
        link[w] = top
        top = w
        w = following
    return top


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _find_blocker(u: int, value_u: int, indptr: _Int64s, indices: _Int64s, value: _Int64s, position: _Int64s) -> int:
    """The lowest of the neighbours that beat u, or NOBODY.

    Any of them would be correct. The lowest is the one most likely to be final (or beaten) last: 2.2 looks per node
    instead of 3.3 with the highest.
    """
    # All the row's cache misses at once; the comparison below would meet them one by one.
    for e in range(indptr[u], indptr[u + 1]):
        prefetch(value, indices[e])
    blocker = NOBODY
    lowest = np.iinfo(np.int64).max
    for e in range(indptr[u], indptr[u + 1]):
        v = indices[e]
        value_v = load(value, v)
        if value_v <= lowest and _beats(value_v, v, value_u, u, position):
            blocker = v
            lowest = value_v
    return blocker


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def settle(
    indptr: _Int64s,
    indices: _Int64s,
    sq_distances: _Float32s,
    gamma: float,
    position: _Int64s,
    value: _Int64s,
    score: _Int64s,
    head: _Int32s,
    link: _Int32s,
    lo: int,
    hi: int,
    shared: bool,
    sweep: bool,
    top: int,
) -> tuple[int, int]:
    """Reverse pass (paper equation (2)) over the own nodes lo <= u < hi, to rest: finalise all that can be.

    Args:
        indptr: int64 [n+1].
        indices: integer [e], into own nodes and ghosts.
        sq_distances: float32 [e].
        gamma: gamma_reverse.
        position: int64 [n+g] canonical positions, or empty where they are the indices.
        value: int64 [n+g], updated.
        score: int64 [n+g], t written where final.
        head: int32 [n+g], NOBODY throughout lo..hi at the start.
        link: int32 [n+g], any content.
        lo: first node, 0 unless shared.
        hi: one past the last node, n unless shared.
        shared: other threads settle other ranges of the same arrays. Then a node beaten from outside the range is
            left for a later call, and rest may be missed where another thread lowered a value (`api.settle_threads`).
        sweep: look at every unfinalised node of the range, none of which is in a list yet. Else only at the stack.
        top: top of a stack of nodes to look at (chained by link), or NOBODY.

    Returns:
        (own nodes finalised, NO_OVERFLOW or the node whose value fell below -LIMIT).
    """
    n_final = 0
    unswept = lo if sweep else hi
    while True:
        if top == NOBODY:
            while unswept < hi and value[unswept] == FINAL:
                unswept += 1
            if unswept == hi:
                return n_final, NO_OVERFLOW
            link[unswept] = NOBODY
            top = unswept
            unswept += 1
        u = top
        top = link[u]
        value_u = load(value, u)
        blocker = _find_blocker(u, value_u, indptr, indices, value, position)
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
        score[u] = value_u
        n_final += u < hi
        # The clamp: a negative t sends nothing (docs/algorithm.md).
        for e in range(indptr[u], indptr[u + 1] if value_u > 0 else indptr[u]):
            v = indices[e]
            # A ghost's value is what its owner says, nothing else: the owner may have counted u's message already.
            if load(value, v) == FINAL or (not shared and v >= hi):
                continue
            amount = message(value_u, gamma, sq_distances[e])
            if shared:
                value_v = subtract(value, v, amount) - amount
            else:
                value_v = value[v] - amount
                value[v] = value_v
            if value_v < -LIMIT:
                return n_final, v
            if lo <= v < hi and head[v] != NOBODY:
                top = wake_beaten(v, value, position, head, link, top)
        # Only now: who reads FINAL may rely on u's messages having arrived.
        store(value, u, FINAL)
        top = wake_all(u, head, link, top)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def strongest_message(
    indptr: _Int64s,
    indices: _Int64s,
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
        suppressed_by: int64 [n], written: block index of the sender of the largest message (ties: the lower canonical
            position), -1 where no message above zero came.
        suppression: int64 [n], written: that message, 2**-40 units; 0 for none.
        lo: first row.
        hi: one past the last row.
    """
    for i in range(lo, hi):
        sender, largest = -1, np.int64(0)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if score[j] <= 0 or not _beats(score[j], j, score[i], i, position):
                continue
            amount = message(score[j], gamma, sq_distances[e])
            if amount > largest or (amount == largest and amount > 0 and _beats(0, j, 0, sender, position)):
                sender, largest = j, amount
        suppressed_by[i] = sender
        suppression[i] = largest
