"""Linked lists of the nodes that wait for a neighbour, and the stack of nodes to visit.

`head[v]` is the first node that waits for v, and `link` continues the list. `link` also chains the
stack, since a node is in at most one list. Index legend as in kernel.py: n own nodes, g ghosts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load
from d2prune.d2.precedence import blocks

NO_NODE = -1  # end of a list
FINAL = -2  # head of a node that is final and whose messages are sent

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]


@kernel(inline="always")
def wake_unblocked(
    v: int, value_v: int, value: _Int64s, position: _Int64s, head: _Int32s, link: _Int32s, top: int
) -> int:
    """Move the nodes that v no longer blocks from its waiting list to the stack.

    Called after the value of v fell.

    Returns:
        New top of the stack.
    """
    kept = NO_NODE
    w = head[v]
    while w != NO_NODE:
        following = link[w]
        if blocks(value_v, v, load(value, w), w, position):
            link[w] = kept
            kept = w
        else:
            link[w] = top
            top = w
        w = following
    head[v] = kept
    return top


@kernel(inline="always")
def wake_all(w: int, link: _Int32s, top: int) -> int:
    """Move a complete waiting list, w its first node, to the stack; returns the new top."""
    while w != NO_NODE:
        following = link[w]
        link[w] = top
        top = w
        w = following
    return top
