"""Compiled parts of a partition: what arrives about ghosts, what goes out about nodes that are ghosts elsewhere.

Pure functions of arrays. Legend as in kernel.py: n own nodes, g ghosts, `value` int64 [n+g].
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.selection.order import DONE, wake_released

TOLD_ALL = np.iinfo(np.int64).min

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def append_ghost_rows(
    indptr: _Int64s, indices: _Int32s, sq_distances: _Float32s, n_ghosts: int
) -> tuple[_Int64s, _Int32s, _Float32s]:
    """The block's CSR with a row for each ghost, as far as its neighbours are own nodes.

    Args:
        indptr: int64 [n+1].
        indices: int32 [e], local: own nodes below n, ghosts from n.
        sq_distances: float32 [e].
        n_ghosts: g.

    Returns:
        indptr int64 [n+g+1], indices int32 [e+c], squared distances float32 [e+c], with c cut edges.
    """
    n, e = len(indptr) - 1, len(indices)
    full_indptr = np.zeros(n + n_ghosts + 1, np.int64)
    for k in range(e):
        if indices[k] >= n:
            full_indptr[indices[k] + 1] += 1
    full_indptr[: n + 1] = indptr
    for ghost in range(n, n + n_ghosts):
        full_indptr[ghost + 1] += full_indptr[ghost]
    cursor = full_indptr[n:-1].copy()
    neighbours = np.empty(full_indptr[-1], np.int32)
    distances = np.empty(full_indptr[-1], np.float32)
    neighbours[:e] = indices
    distances[:e] = sq_distances
    for u in range(n):
        for k in range(indptr[u], indptr[u + 1]):
            ghost = indices[k] - n
            if ghost >= 0:
                neighbours[cursor[ghost]] = u
                distances[cursor[ghost]] = sq_distances[k]
                cursor[ghost] += 1
    return full_indptr, neighbours, distances


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def receive(
    slots: _Int32s,
    values: _Int64s,
    first_ghost: int,
    position: _Int64s,
    value: _Int64s,
    head: _Int32s,
    link: _Int32s,
    known: NDArray[np.bool_],
    top: int,
) -> int:
    """Take in what one other partition says about its nodes; idempotent, and entries may come in any order.

    A final ghost's messages do not go out here: a node of ours may still have to be finalised before it (its news
    overtook another's, or this partition was restored from an older state). It joins the stack and takes its turn.

    Args:
        slots: int32 [M]; slot k >= 0: a bound for the sender's k-th ghost here; ~k: that ghost is final.
        values: int64 [M], the bound, or t.
        first_ghost: local index of the sender's ghost 0.
        position: int64 [n+g].
        value: int64 [n+g], updated.
        head: int32 [n+g], updated.
        link: int32 [n+g], updated.
        known: bool [g], whether the ghost's value is its t; updated.
        top: top of the stack of nodes to look at.

    Returns:
        The new top.
    """
    n = len(value) - len(known)
    for k in range(len(slots)):
        slot = slots[k]
        is_final = slot < 0
        ghost = first_ghost + (~slot if is_final else slot)
        if known[ghost - n]:
            continue
        if values[k] < value[ghost]:
            value[ghost] = values[k]
            top = wake_released(ghost, values[k], value, position, head, link, top)
        if is_final:
            known[ghost - n] = True
            link[ghost] = top
            top = ghost
    return top


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def collect_changes(
    export_nodes: _Int32s, lo: int, hi: int, value: _Int64s, head: _Int32s, last_sent: _Int64s
) -> tuple[_Int32s, _Int64s]:
    """What the partition behind exports lo .. hi-1 has not been told yet, as (slots, values) for `receive`.

    A node told to be at or below zero is of no interest to others any more: it sends nothing and blocks nobody.

    Args:
        export_nodes: int32 [x], own nodes, those known to one other partition side by side.
        lo: first export of the destination.
        hi: one past its last.
        value: int64 [n+g].
        head: int32 [n+g].
        last_sent: int64 [x], what the destination knows (TOLD_ALL: it needs no more); updated.
    """
    slots, values = np.empty(hi - lo, np.int32), np.empty(hi - lo, np.int64)
    m = 0
    for k in range(lo, hi):
        u = export_nodes[k]
        if last_sent[k] == TOLD_ALL or (value[u] == last_sent[k] and head[u] != DONE):
            continue
        slots[m] = ~(k - lo) if head[u] == DONE else k - lo
        values[m] = value[u]
        last_sent[k] = TOLD_ALL if head[u] == DONE or value[u] <= 0 else value[u]
        m += 1
    return slots[:m].copy(), values[:m].copy()
