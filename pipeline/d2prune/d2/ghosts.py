"""Compiled parts of a partition: what arrives about ghosts, what goes out about nodes that are ghosts elsewhere.

Pure functions of arrays. Legend as in kernel.py: n own nodes, g ghosts, `value` int64 [n+g].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.d2.order import DONE, NOBODY, wake_released

TOLD_ALL = np.iinfo(np.int64).min

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]


@kernel
def receive(
    slots: _Int32s,
    values: _Int64s,
    first_ghosts: _Int64s,
    position: _Int64s,
    value: _Int64s,
    head: _Int32s,
    link: _Int32s,
    known: NDArray[np.bool_],
) -> int:
    """Take in what other partitions say about their nodes; idempotent, and entries may come in any order.

    A final ghost's messages do not go out here: a node of ours may still have to be finalised
    before it (its news overtook another's, or this partition was restored from an older state). It
    joins the stack and takes its turn.

    Args:
        slots: int32 [M]; slot k >= 0: a bound for the sender's k-th ghost here; ~k: that ghost is final.
        values: int64 [M], the bound, or t.
        first_ghosts: int64 [M], local index of ghost 0 of each entry's sender.
        position: int64 [n+g].
        value: int64 [n+g], updated.
        head: int32 [n+g], updated.
        link: int32 [n+g], updated.
        known: bool [g], whether the ghost's value is its t; updated.

    Returns:
        Top of the stack of nodes to look at.
    """
    n = len(value) - len(known)
    top = NOBODY
    for k in range(len(slots)):
        slot = slots[k]
        is_final = slot < 0
        ghost = first_ghosts[k] + (~slot if is_final else slot)
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


@kernel
def collect_changes(
    export_nodes: _Int32s, bounds: _Int64s, value: _Int64s, head: _Int32s, last_sent: _Int64s
) -> tuple[_Int32s, _Int64s, _Int64s]:
    """What other partitions have not been told yet, as (slots, values) for `receive`, one destination after another.

    A node told to be at or below zero is of no interest to others any more: it sends nothing and
    blocks nobody.

    Args:
        export_nodes: int32 [x], own nodes, those known to one other partition side by side.
        bounds: int64 [d+1], where the exports to each of d destinations begin.
        value: int64 [n+g].
        head: int32 [n+g].
        last_sent: int64 [x], what the destination knows (TOLD_ALL: it needs no more); updated.

    Returns:
        slots int32 [M], values int64 [M], and int64 [d+1], where the news for each destination begin.
    """
    slots, values = np.empty(len(export_nodes), np.int32), np.empty(len(export_nodes), np.int64)
    starts = np.zeros(len(bounds), np.int64)
    m = 0
    for dest in range(len(bounds) - 1):
        for k in range(bounds[dest], bounds[dest + 1]):
            u = export_nodes[k]
            if last_sent[k] == TOLD_ALL or (value[u] == last_sent[k] and head[u] != DONE):
                continue
            slot = k - bounds[dest]
            slots[m] = ~slot if head[u] == DONE else slot
            values[m] = value[u]
            last_sent[k] = TOLD_ALL if head[u] == DONE or value[u] <= 0 else value[u]
            m += 1
        starts[dest + 1] = m
    if 2 * m > len(slots):
        # In the first rounds nearly all changes: a copy would double what is on its way.
        return slots[:m], values[:m], starts
    return slots[:m].copy(), values[:m].copy(), starts
