"""Which of two nodes the greedy algorithm picks first, and when one has to wait for the other.

This is the definition of the algorithm; everything else in the package follows from it.
Index legend as in kernel.py: n own nodes, g ghosts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

_Int64s = NDArray[np.int64]


@kernel(inline="always")
def precedes(value_u: int, u: int, value_v: int, v: int, position: _Int64s) -> bool:
    """Whether u is picked before v: by higher value, then by lower canonical position.

    `position` is int64 [n+g]; when it is empty, the node indices are the positions.
    """
    if value_u != value_v:
        return bool(value_u > value_v)
    if len(position) == 0:
        return u < v
    return bool(position[u] < position[v])


@kernel(inline="always")
def blocks(value_u: int, u: int, value_v: int, v: int, position: _Int64s) -> bool:
    """Whether v must wait for the unfinalised node u.

    It must if u precedes v and is positive: a node picked at or below zero sends no message.
    """
    return value_u > 0 and precedes(value_u, u, value_v, v, position)
