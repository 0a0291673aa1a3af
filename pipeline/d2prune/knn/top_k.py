"""The K nearest rows of each query, and how a candidate is inserted.

Invariant: after any sequence of candidates, a query holds exactly the K smallest pairs (canonical
distance, canonical position) of all candidates, ties to the lower position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

NO_POSITION = np.iinfo(np.int64).max
# Bounds that are tested together before any of them is looked at by itself.
STRIP = 64


@dataclass(frozen=True)
class TopK:
    """The K nearest so far of Q queries, best first; `search_block` updates it in place.

    Attributes:
        sq_distances: float32 [Q, K], ascending. A row of -inf takes nothing.
        positions: int64 [Q, K], canonical positions; NO_POSITION where nothing was found.
    """

    sq_distances: Float32
    positions: Int64

    @classmethod
    def empty(cls, n_queries: int, n_neighbors: int, bounds_Q: Float32 | None = None) -> TopK:
        """Return a `TopK` with nothing found.

        Args:
            n_queries: Q.
            n_neighbors: K.
            bounds_Q: float32 [Q], largest squared distance to accept (inclusive); None: any.

        Returns:
            A `TopK` whose unfilled slots hold the bound.
        """
        sq_distances = np.full((n_queries, n_neighbors), np.inf, np.float32)
        if bounds_Q is not None:
            sq_distances[:] = bounds_Q[:, None]
        return cls(sq_distances, np.full((n_queries, n_neighbors), NO_POSITION))

    def __getitem__(self, rows: slice | Int64) -> TopK:
        """Return some queries; a slice shares memory with this one."""
        return TopK(self.sq_distances[rows], self.positions[rows])


@kernel
def insert(distances_K: Float32, positions_K: Int64, distance: np.float32, position: int) -> None:
    """Insert a pair that is less than the last of K ascending pairs; the last one drops out.

    Args:
        distances_K: float32 [K], updated in place.
        positions_K: int64 [K], updated in place.
        distance: canonical squared distance.
        position: canonical position.
    """
    slot = distances_K.shape[0] - 1
    while slot > 0 and (
        distance < distances_K[slot - 1]
        or (distance == distances_K[slot - 1] and position < positions_K[slot - 1])
    ):
        distances_K[slot] = distances_K[slot - 1]
        positions_K[slot] = positions_K[slot - 1]
        slot -= 1
    distances_K[slot] = distance
    positions_K[slot] = position


@kernel
def take(distances_K: Float32, positions_K: Int64, distance: np.float32, position: int) -> bool:
    """Insert a pair if it is among the K nearest so far; return whether it was. Arguments as of `insert`."""
    last = distances_K.shape[0] - 1
    is_near = distance < distances_K[last] or (distance == distances_K[last] and position < positions_K[last])
    if not is_near or position == NO_POSITION:
        return False
    for slot in range(last + 1):
        if positions_K[slot] == position:
            return False
    insert(distances_K, positions_K, distance, position)
    return True


@kernel
def find_largest(upper_M: Float32, positions_M: Int64, values_K: Float32, members_K: Int64) -> None:
    """Find the members of the largest bounds, except those that no query takes.

    Args:
        upper_M: float32 [M].
        positions_M: int64 [M]; NO_POSITION for members to leave out.
        values_K: float32 [K], filled with the bounds.
        members_K: int64 [K], filled with the members; -1 where fewer are left.
    """
    values_K[:], members_K[:] = -np.inf, -1
    n_best, n_members = values_K.shape[0], upper_M.shape[0]
    for start in range(0, n_members, STRIP):
        stop = min(start + STRIP, n_members)
        larger = 0
        for m in range(start, stop):
            larger += upper_M[m] > values_K[0]
        if larger == 0:
            continue
        for m in range(start, stop):
            value = upper_M[m]
            if value > values_K[0] and positions_M[m] != NO_POSITION:
                slot = 0
                while slot < n_best - 1 and value > values_K[slot + 1]:
                    values_K[slot] = values_K[slot + 1]
                    members_K[slot] = members_K[slot + 1]
                    slot += 1
                values_K[slot] = value
                members_K[slot] = m
