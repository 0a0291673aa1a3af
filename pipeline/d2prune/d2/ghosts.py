"""Compiled kernels of a partition: apply updates of ghosts, collect updates to send.

Pure functions of arrays. Index legend as in kernel.py: n own nodes, g ghosts, `value` int64 [n+g].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.d2.waiting_lists import FINAL, NO_NODE, wake_unblocked

# In place of the last value sent: the destination needs no further update of this node.
COMPLETE = np.iinfo(np.int64).min

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]


@kernel
def apply_updates(
    slots: _Int32s,
    values: _Int64s,
    first_ghosts: _Int64s,
    position: _Int64s,
    value: _Int64s,
    head: _Int32s,
    link: _Int32s,
    ghost_final: NDArray[np.bool_],
) -> int:
    """Apply the updates that other partitions sent about their nodes.

    Idempotent; entries may arrive in any order. The messages of a final ghost are not sent here: an
    own node may have to be finalised before it, either because one update overtook another or
    because this partition was restored from an older state. The ghost is pushed on the stack and is
    visited like an own node.

    Args:
        slots: int32 [M]; k >= 0: a new bound of the sender's k-th ghost here; ~k: that ghost is
            final.
        values: int64 [M], the bound, or t.
        first_ghosts: int64 [M], local index of ghost 0 of each entry's sender.
        position: int64 [n+g].
        value: int64 [n+g], updated.
        head: int32 [n+g], updated.
        link: int32 [n+g], updated.
        ghost_final: bool [g], whether the ghost's value is its t; updated.

    Returns:
        Top of the stack of nodes to visit.
    """
    n = len(value) - len(ghost_final)
    top = NO_NODE
    for k in range(len(slots)):
        slot = slots[k]
        is_final = slot < 0
        ghost = first_ghosts[k] + (~slot if is_final else slot)
        if ghost_final[ghost - n]:
            continue
        if values[k] < value[ghost]:
            value[ghost] = values[k]
            top = wake_unblocked(ghost, values[k], value, position, head, link, top)
        if is_final:
            ghost_final[ghost - n] = True
            link[ghost] = top
            top = ghost
    return top


@kernel
def collect_updates(
    export_nodes: _Int32s, bounds: _Int64s, value: _Int64s, head: _Int32s, last_sent: _Int64s
) -> tuple[_Int32s, _Int64s, _Int64s]:
    """Collect what changed since the last update to each destination, for `apply_updates`.

    A node that was reported at or below zero needs no further update: it sends no messages and
    blocks no node.

    Args:
        export_nodes: int32 [x], own nodes, grouped by the partition that has them as ghosts.
        bounds: int64 [d+1], where the exports to each of d destinations begin.
        value: int64 [n+g].
        head: int32 [n+g].
        last_sent: int64 [x], the last value sent, or COMPLETE; updated.

    Returns:
        slots int32 [M], values int64 [M], and int64 [d+1], where the updates to each destination
        begin.
    """
    slots, values = np.empty(len(export_nodes), np.int32), np.empty(len(export_nodes), np.int64)
    starts = np.zeros(len(bounds), np.int64)
    m = 0
    for dest in range(len(bounds) - 1):
        for k in range(bounds[dest], bounds[dest + 1]):
            u = export_nodes[k]
            if last_sent[k] == COMPLETE or (value[u] == last_sent[k] and head[u] != FINAL):
                continue
            slot = k - bounds[dest]
            slots[m] = ~slot if head[u] == FINAL else slot
            values[m] = value[u]
            last_sent[k] = COMPLETE if head[u] == FINAL or value[u] <= 0 else value[u]
            m += 1
        starts[dest + 1] = m
    if 2 * m > len(slots):
        # In the first rounds nearly every node changes; a copy would double the memory in flight.
        return slots[:m], values[:m], starts
    return slots[:m].copy(), values[:m].copy(), starts
