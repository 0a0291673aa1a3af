"""Turns directed neighbours into the paper's undirected graph: edge {i, j} if either row lists the other.

Reads (source, target, squared distance) triples; returns CSR rows. Invariant: rows ascend by index
and have no duplicates. The graph is symmetric because the canonical distance of a pair is symmetric
bit for bit. A worker that builds rows [start, stop) needs only the edges that leave or enter them:
workers exchange those and call `rows_from_edges`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.knn.csr import Graph
from d2prune.knn.top_k import NO_POSITION

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Rows up to this length are sorted by insertion, longer ones by a heap.
_SHORT = 64


def symmetrise(neighbours_NK: Int64, sq_distances_NK: Float32) -> Graph:
    """Return the undirected graph of N nodes.

    Args:
        neighbours_NK: int64 [N, K], neighbours of node n in row n; NO_POSITION where there is none.
        sq_distances_NK: float32 [N, K], canonical.

    Returns:
        The graph.
    """
    n_nodes, n_neighbors = neighbours_NK.shape
    found = neighbours_NK != NO_POSITION
    sources = np.repeat(np.arange(n_nodes), n_neighbors)[found.ravel()]
    targets, distances = neighbours_NK[found], sq_distances_NK[found]
    return rows_from_edges(
        np.concatenate([sources, targets]),
        np.concatenate([targets, sources]),
        np.tile(distances, 2),
        0,
        n_nodes,
    )


def rows_from_edges(
    sources_E: Int64, targets_E: Int64, sq_distances_E: Float32, start: int, stop: int
) -> Graph:
    """Build rows `start:stop` of the graph from its directed edges, in any order and with repetitions.

    Args:
        sources_E: int64 [E], each in [start, stop).
        targets_E: int64 [E], any node.
        sq_distances_E: float32 [E]; repetitions of an edge have the same bits.
        start: first row.
        stop: one past the last row.

    Returns:
        CSR with `stop - start` rows; indices are global. It passes `Graph.validate` only if it has
        all rows of the graph.
    """
    counts = np.bincount(sources_E - start, minlength=stop - start)
    indptr = np.zeros(stop - start + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    indices, distances = _scatter(sources_E, targets_E, sq_distances_E, start, indptr)
    lengths = _sort_unique(indptr, indices, distances)
    packed = np.zeros_like(indptr)
    np.cumsum(lengths, out=packed[1:])
    keep = _pack(indptr, packed, indices, distances)
    return Graph(packed, indices[:keep].copy(), distances[:keep].copy())


@kernel
def _scatter(
    sources_E: Int64, targets_E: Int64, distances_E: Float32, start: int, indptr: Int64
) -> tuple[Int64, Float32]:
    cursor = indptr[:-1].copy()
    indices, distances = np.empty(sources_E.shape[0], np.int64), np.empty(sources_E.shape[0], np.float32)
    for e in range(sources_E.shape[0]):
        row = sources_E[e] - start
        indices[cursor[row]] = targets_E[e]
        distances[cursor[row]] = distances_E[e]
        cursor[row] += 1
    return indices, distances


@kernel
def _insertion_sort(indices: Int64, distances: Float32) -> None:
    """Sort entries by index in place."""
    for i in range(1, indices.shape[0]):
        index, distance, slot = indices[i], distances[i], i
        while slot > 0 and index < indices[slot - 1]:
            indices[slot], distances[slot] = indices[slot - 1], distances[slot - 1]
            slot -= 1
        indices[slot], distances[slot] = index, distance


@kernel
def _heap_sort(indices: Int64, distances: Float32) -> None:
    """Sort entries by index in place. numba compiles this in a tenth of the time of its `argsort`."""
    unordered, size = indices.shape[0] // 2, indices.shape[0]
    while size > 1:
        if unordered > 0:
            # The entries from here on form a heap, the largest first, once this one has sunk.
            unordered -= 1
        else:
            size -= 1
            indices[0], indices[size] = indices[size], indices[0]
            distances[0], distances[size] = distances[size], distances[0]
        slot = unordered
        index, distance = indices[slot], distances[slot]
        while 2 * slot + 1 < size:
            child = 2 * slot + 1
            if child + 1 < size and indices[child] < indices[child + 1]:
                child += 1
            if indices[child] <= index:
                break
            indices[slot], distances[slot] = indices[child], distances[child]
            slot = child
        indices[slot], distances[slot] = index, distance


@kernel
def _sort_unique(indptr: Int64, indices: Int64, distances: Float32) -> Int64:
    """Sort each row by index and move its distinct entries to the front; return their number per row."""
    n_rows = indptr.shape[0] - 1
    lengths = np.zeros(n_rows, np.int64)
    for row in range(n_rows):
        low, high = indptr[row], indptr[row + 1]
        if high - low <= _SHORT:
            _insertion_sort(indices[low:high], distances[low:high])
        else:
            _heap_sort(indices[low:high], distances[low:high])
        write = low
        for i in range(low, high):
            if i == low or indices[i] != indices[write - 1]:
                indices[write], distances[write] = indices[i], distances[i]
                write += 1
        lengths[row] = write - low
    return lengths


@kernel
def _pack(indptr: Int64, packed: Int64, indices: Int64, distances: Float32) -> int:
    for row in range(indptr.shape[0] - 1):
        for i in range(packed[row + 1] - packed[row]):
            indices[packed[row] + i] = indices[indptr[row] + i]
            distances[packed[row] + i] = distances[indptr[row] + i]
    return int(packed[-1])
