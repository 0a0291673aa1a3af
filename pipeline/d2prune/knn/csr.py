"""The undirected kNN graph as compressed sparse rows, and the check that it is one.

Reads and writes nothing. Invariant of a valid `Graph`: symmetric (edge i->j exists with the same
distance as j->i), no self-edge, every row strictly ascending by neighbour index (so no duplicate
edge), distances finite and >= 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import prefetch
from d2prune.errors import UserError

_OK, _OUT_OF_RANGE, _SELF_EDGE, _UNSORTED, _BAD_DISTANCE, _NO_TWIN, _OTHER_DISTANCE = range(7)
_AHEAD = 16


@dataclass(frozen=True)
class Graph:
    """An undirected weighted graph over N nodes; node i is the sample at canonical position i.

    Attributes:
        indptr: int64 [N+1]; row i is `indices[indptr[i]:indptr[i+1]]`.
        indices: int64 [E], E directed edges (each undirected edge appears twice), ascending within a row.
        sq_distances: float32 [E], squared Euclidean distance of each edge.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    sq_distances: NDArray[np.float32]

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """E, counting both directions of an edge."""
        return len(self.indices)

    def validate(self) -> None:
        """Check every invariant of the class in one pass over the edges, O(N + E) time and 8 N bytes.

        Raises:
            UserError: names the first node at fault, its neighbour, and what was expected.
        """
        _check_arrays(self)
        cursor = self.indptr[:-1].copy()
        fault, i, j = _first_fault(self.indptr, self.indices, self.sq_distances, cursor)
        if fault != _OK:
            raise UserError(_describe(fault, i, j, self.n_nodes))


def _check_arrays(graph: Graph) -> None:
    """Shapes, dtypes and row pointers, before any compiled code indexes with them."""
    for name, array, dtype in (
        ("indptr", graph.indptr, np.int64),
        ("indices", graph.indices, np.int64),
        ("sq_distances", graph.sq_distances, np.float32),
    ):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise UserError(f"graph.{name}: got {got}, expected a 1-d array of {np.dtype(dtype).name}")
    indptr = graph.indptr
    if len(indptr) < 1 or indptr[0] != 0 or indptr[-1] != len(graph.indices) or (np.diff(indptr) < 0).any():
        raise UserError(f"graph.indptr must rise from 0 to the {len(graph.indices)} entries of graph.indices")
    if len(graph.sq_distances) != len(graph.indices):
        raise UserError(
            f"graph.sq_distances has {len(graph.sq_distances)} entries, graph.indices has {len(graph.indices)}"
        )


@kernel
def _first_fault(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    sq_distances: NDArray[np.float32],
    cursor: NDArray[np.int64],
) -> tuple[int, int, int]:
    """The first broken invariant as (code, i, j).

    Symmetry without a search: rows are visited in ascending i, so the entries of row j are claimed
    by their twins in exactly the order they are stored. `cursor[j]` (int64 [N], starts as
    indptr[:-1]) is the next unclaimed one.
    """
    n = len(indptr) - 1
    last = len(indices) - 1
    for i in range(n):
        previous = -1
        for e in range(indptr[i], indptr[i + 1]):
            # In a pool in random order every twin is a cache miss, found by way of another: ask for
            # both ahead of need.
            prefetch(cursor, indices[min(e + 2 * _AHEAD, last)])
            ahead = indices[min(e + _AHEAD, last)]
            if 0 <= ahead < n:
                prefetch(indices, cursor[ahead])
                prefetch(sq_distances, cursor[ahead])
                prefetch(indptr, ahead + 1)
            j = indices[e]
            if j < 0 or j >= n:
                return _OUT_OF_RANGE, i, j
            if j == i:
                return _SELF_EDGE, i, j
            if j <= previous:
                return _UNSORTED, i, j
            previous = j
            d = sq_distances[e]
            if not (d >= 0.0 and d < np.inf):
                return _BAD_DISTANCE, i, j
            twin = cursor[j]
            if twin >= indptr[j + 1] or indices[twin] != i:
                return _NO_TWIN, i, j
            if sq_distances[twin] != d:
                return _OTHER_DISTANCE, i, j
            cursor[j] = twin + 1
    return _OK, -1, -1


def _describe(fault: int, i: int, j: int, n: int) -> str:
    """One line for the user."""
    if fault == _OUT_OF_RANGE:
        return f"graph: node {i} has neighbour {j}, expected 0 <= neighbour < {n}"
    if fault == _SELF_EDGE:
        return f"graph: node {i} is its own neighbour; self-edges are not allowed"
    if fault == _UNSORTED:
        return f"graph: row {i} is not strictly ascending at neighbour {j} (rows must be sorted, without duplicates)"
    if fault == _BAD_DISTANCE:
        return f"graph: edge ({i}, {j}) has a distance that is negative or not finite"
    if fault == _NO_TWIN:
        # Row j may hold the twin out of place, or hold an entry whose own twin is missing: name the pair met.
        return f"graph: not symmetric near edge ({i}, {j}): rows {i} and {j} disagree about who is a neighbour of whom"
    return (
        f"graph: edge ({i}, {j}) has another squared distance than edge ({j}, {i}); expected the same float32"
    )
