"""One partition's rows of the graph in local indices: remote neighbours become ghosts.

Also lists the own nodes that other partitions have as ghosts (exports). Pure functions of arrays.
Index legend as in kernel.py: n own nodes with e edges, c of which are cut (lead to another
partition), g ghosts, x exports, d adjacent partitions.

Memory: beyond the arguments and the result, 16 bytes per cut edge while the ghosts are found. To
keep it there, nothing here uses `np.unique` with its inverse, and edges are translated in batches:
each int64 array over the edges takes 64 bytes per node at k = 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.errors import UserError

INDEX_BITS = 32
"""Lower bits of a node id: the node's index in its partition; the upper bits are the partition."""

# Edges translated per batch. A sorted batch walks the ghosts in order, whereas each edge alone would
# search cold memory. Its temporary arrays take a few MiB.
_EDGES_PER_BATCH = 1 << 18

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class LocalGraph:
    """One partition's share of the graph, in local indices.

    Own nodes come first, then ghosts by (owner, index there).

    Attributes:
        indptr: int64 [n+g+1]; the row of a ghost lists its neighbours among the own nodes.
        indices: int32 [e+c].
        sq_distances: float32 [e+c].
        adjacent: int64 [d], the other partitions that share an edge with this one, ascending.
        ghost_bounds: int64 [d+1], where the ghosts owned by each adjacent partition begin, from 0.
        export_nodes: int32 [x], own nodes that are ghosts elsewhere, grouped by adjacent partition,
            ascending within.
        export_bounds: int64 [d+1], where the exports to each adjacent partition begin.
    """

    indptr: _Int64s
    indices: _Int32s
    sq_distances: _Float32s
    adjacent: _Int64s
    ghost_bounds: _Int64s
    export_nodes: _Int32s
    export_bounds: _Int64s

    @property
    def rows(self) -> tuple[_Int64s, _Int32s, _Float32s]:
        """(indptr, indices, sq_distances), in the order of the kernels' arguments."""
        return self.indptr, self.indices, self.sq_distances

    @property
    def n_ghosts(self) -> int:
        """Number of ghosts, g."""
        return int(self.ghost_bounds[-1])


def build_local_graph(
    partition: int, indptr: _Int64s, neighbors: _Int64s, sq_distances: _Float32s
) -> LocalGraph:
    """Translate a partition's rows to local indices and add its ghosts.

    Args:
        partition: number of the partition.
        indptr: int64 [n+1].
        neighbors: int64 [e], node ids.
        sq_distances: float32 [e].

    Raises:
        UserError: too many nodes and ghosts for one partition.
    """
    n = len(indptr) - 1
    ghost_ids = _select_remote(neighbors, partition)
    n_cut = len(ghost_ids)
    ghost_ids = sort_distinct(ghost_ids)
    n_ghosts = len(ghost_ids)
    if n + n_ghosts >= 2**31 - 1:
        raise UserError(f"partition {partition}: {n} nodes and {n_ghosts} ghosts, expected fewer than 2**31")
    # Ghosts are sorted by (owner, index there). Because the graph is symmetric, the owner lists its
    # exports to this partition in the same order: both sides derive the slots without communication.
    owner_G = (ghost_ids >> INDEX_BITS).astype(np.int32)
    first = np.flatnonzero(owner_G[1:] != owner_G[:-1]) + 1
    ghost_bounds = np.concatenate([[0], first, [n_ghosts]]) if n_ghosts else np.zeros(1, np.int64)
    adjacent = owner_G[ghost_bounds[:-1]].astype(np.int64)
    del owner_G
    indices = np.empty(len(neighbors) + n_cut, np.int32)
    for lo in range(0, len(neighbors), _EDGES_PER_BATCH):
        indices[lo : min(lo + _EDGES_PER_BATCH, len(neighbors))] = _to_local(
            neighbors[lo : lo + _EDGES_PER_BATCH], partition, n, ghost_ids
        )
    del ghost_ids
    export_nodes, export_bounds = _list_exports(indptr, neighbors, partition, adjacent)
    full_indptr, distances = _add_ghost_rows(indptr, indices, sq_distances, n_ghosts)
    return LocalGraph(full_indptr, indices, distances, adjacent, ghost_bounds, export_nodes, export_bounds)


def sort_distinct(values: _Int64s) -> _Int64s:
    """Sort an array in place and return its distinct values; unlike `np.unique`, without a copy."""
    values.sort()
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def _to_local(neighbors: _Int64s, partition: int, n: int, ghost_ids: _Int64s) -> _Int32s:
    """Translate node ids to local indices."""
    local: _Int32s = (neighbors & (2**INDEX_BITS - 1)).astype(np.int32)
    cut = np.flatnonzero((neighbors >> INDEX_BITS) != partition)
    ids = neighbors[cut]
    order = np.argsort(ids)
    local[cut[order]] = n + np.searchsorted(ghost_ids, ids[order])
    return local


@kernel
def _select_remote(neighbors: _Int64s, partition: int) -> _Int64s:
    """Return the ids owned by other partitions, int64 [c]."""
    c = 0
    for k in range(len(neighbors)):
        c += (neighbors[k] >> INDEX_BITS) != partition
    remote = np.empty(c, np.int64)
    c = 0
    for k in range(len(neighbors)):
        if (neighbors[k] >> INDEX_BITS) != partition:
            remote[c] = neighbors[k]
            c += 1
    return remote


@kernel
def _list_exports(
    indptr: _Int64s, neighbors: _Int64s, partition: int, adjacent: _Int64s
) -> tuple[_Int32s, _Int64s]:
    """Return export_nodes and export_bounds of `LocalGraph`: a counting pass, then a filling pass."""
    bounds = np.zeros(len(adjacent) + 1, np.int64)
    latest = np.empty(len(adjacent), np.int64)
    nodes = np.empty(0, np.int32)
    for fill in (False, True):
        latest[:] = -1
        for i in range(len(indptr) - 1):
            for e in range(indptr[i], indptr[i + 1]):
                owner = neighbors[e] >> INDEX_BITS
                if owner == partition:
                    continue
                k = np.searchsorted(adjacent, owner)
                if latest[k] == i:
                    continue
                latest[k] = i
                if fill:
                    nodes[bounds[k]] = i
                    bounds[k] += 1
                else:
                    bounds[k + 1] += 1
        if not fill:
            for k in range(len(adjacent)):
                bounds[k + 1] += bounds[k]
            nodes = np.empty(bounds[-1], np.int32)
    # Filling moved each bound to the start of the next group; move them back.
    for k in range(len(adjacent) - 1, 0, -1):
        bounds[k] = bounds[k - 1]
    if len(adjacent):
        bounds[0] = 0
    return nodes, bounds


@kernel
def _add_ghost_rows(
    indptr: _Int64s, indices: _Int32s, sq_distances: _Float32s, n_ghosts: int
) -> tuple[_Int64s, _Float32s]:
    """Append a row for each ghost: its neighbours among the own nodes.

    Args:
        indptr: int64 [n+1].
        indices: int32 [e+c]; the first e are the own nodes' rows, the rest is written.
        sq_distances: float32 [e].
        n_ghosts: g.

    Returns:
        indptr int64 [n+g+1], squared distances float32 [e+c].
    """
    n, e = len(indptr) - 1, len(sq_distances)
    distances = np.empty(len(indices), np.float32)
    distances[:e] = sq_distances
    full_indptr = np.zeros(n + n_ghosts + 1, np.int64)
    full_indptr[: n + 1] = indptr
    # A ghost's entry holds the number of its neighbours, then the start of its row and, once the row
    # is filled, its end.
    for k in range(e):
        if indices[k] >= n:
            full_indptr[indices[k] + 1] += 1
    start = np.int64(e)
    for ghost in range(n + 1, n + n_ghosts + 1):
        start, full_indptr[ghost] = start + full_indptr[ghost], start
    for i in range(n):
        for k in range(indptr[i], indptr[i + 1]):
            if indices[k] >= n:
                slot = full_indptr[indices[k] + 1]
                indices[slot], distances[slot] = i, sq_distances[k]
                full_indptr[indices[k] + 1] = slot + 1
    return full_indptr, distances
