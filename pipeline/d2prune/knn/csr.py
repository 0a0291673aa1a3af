"""The undirected kNN graph as compressed sparse rows, and its validation.

Invariant of a valid `Graph`: symmetric (edge i->j exists with the same distance as j->i), no
self-edge, every row strictly ascending by neighbour index (so no duplicate edge), distances finite
and >= 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import prefetch
from d2prune.errors import ArgumentError

_OK, _OUT_OF_RANGE, _SELF_EDGE, _UNSORTED, _BAD_DISTANCE, _NO_TWIN, _OTHER_DISTANCE = range(7)
# Entries between the one that is checked and the one that is prefetched.
_AHEAD = 16


@dataclass(frozen=True)
class Graph:
    """An undirected weighted graph over N nodes; node i is the sample at canonical position i.

    Attributes:
        indptr: int64 [N+1]; row i is `indices[indptr[i]:indptr[i+1]]`.
        indices: int64 [E], directed edges (each undirected edge twice), ascending within a row.
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
            ArgumentError: names the first invalid edge, and what was expected.
        """
        _check_arrays(self)
        cursor = self.indptr[:-1].copy()
        fault, i, j = _find_fault(self.indptr, self.indices, self.sq_distances, cursor)
        if fault != _OK:
            raise ArgumentError(_describe(fault, i, j, self.n_nodes))


def _check_arrays(graph: Graph) -> None:
    """Check shapes, dtypes and row pointers, because the compiled code checks no bounds."""
    for name, array, dtype in (
        ("indptr", graph.indptr, np.int64),
        ("indices", graph.indices, np.int64),
        ("sq_distances", graph.sq_distances, np.float32),
    ):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentError(
                f"graph.{name}: found {found}; expected a 1-d array of {np.dtype(dtype).name}"
            )
    indptr = graph.indptr
    if len(indptr) < 1 or indptr[0] != 0 or indptr[-1] != len(graph.indices) or (np.diff(indptr) < 0).any():
        raise ArgumentError(
            f"graph.indptr: expected it to start at 0, never to decrease and to end at {len(graph.indices)}, "
            "the length of graph.indices"
        )
    if len(graph.sq_distances) != len(graph.indices):
        raise ArgumentError(
            f"graph.sq_distances: found {len(graph.sq_distances)} entries; expected {len(graph.indices)}, "
            "the length of graph.indices"
        )


@kernel
def _find_fault(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int64],
    sq_distances: NDArray[np.float32],
    cursor: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Return the first broken invariant as (code, i, j).

    Symmetry is checked without searching: rows are visited in ascending i, so the entries of row j
    are claimed by their twins in the order they are stored. `cursor[j]` (int64 [N], initially
    indptr[:-1]) is the next unclaimed entry.
    """
    n = len(indptr) - 1
    last = len(indices) - 1
    for i in range(n):
        previous = -1
        for e in range(indptr[i], indptr[i + 1]):
            # In a pool in random order every cursor and every twin is a cache miss: prefetch both.
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
    """Return the error message."""
    if fault == _OUT_OF_RANGE:
        return f"graph, row {i}: found neighbour {j}; expected 0 <= neighbour < {n}"
    if fault == _SELF_EDGE:
        return f"graph, row {i}: found node {i} as its own neighbour; expected no self-edges"
    if fault == _UNSORTED:
        return (
            f"graph, row {i}: not strictly ascending at neighbour {j}; expected sorted, distinct neighbours"
        )
    if fault == _BAD_DISTANCE:
        return f"graph, edge ({i}, {j}): found a negative or non-finite distance; expected finite and >= 0"
    if fault == _NO_TWIN:
        # Either edge (j, i) is missing, or row j holds an earlier entry that no row has claimed.
        return f"graph, edge ({i}, {j}): not symmetric; expected each of rows {i} and {j} to list the other"
    return f"graph, edges ({i}, {j}) and ({j}, {i}): found different squared distances; expected equal ones"
