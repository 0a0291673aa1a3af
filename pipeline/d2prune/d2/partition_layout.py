"""A partition's rows as the kernel wants them: neighbours elsewhere become ghosts, and who must hear of whom is listed.

Pure functions of arrays. Legend as in kernel.py: n own nodes with e edges, c of which are cut (lead
to another partition), g ghosts, x exports.

Memory: beyond what is given and the block itself, 16 bytes a cut edge while the ghosts are found.
That is why nothing here is `np.unique` with its inverse and why edges are translated some at a
time: each array of an int64 per edge is 64 bytes a node at k = 5, and a member of the ranking once
held ten of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.errors import UserError

INDEX_BITS = 32
"""Of a node's id within a run: its index in its partition; the bits above are the partition."""

# Edges that are translated at a time: sorted, they meet the ghosts in order, where one by one each
# would be a search in cold memory; few enough that their temporary arrays (a few MiB) do not count.
_AT_ONCE = 1 << 18

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]
_Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """One partition's share of the graph, in local indices: own nodes first, then ghosts by (owner, index there).

    Attributes:
        indptr: int64 [n+g+1]; a ghost has a row too, as far as its neighbours are own nodes.
        indices: int32 [e+c].
        sq_distances: float32 [e+c].
        sources: int64 [d], the other partitions that share an edge with this one, ascending.
        ghost_bounds: int64 [d+1], where the ghosts of each source begin, from 0.
        export_nodes: int32 [x], own nodes that sources have as ghosts, source by source, ascending within.
        export_bounds: int64 [d+1], where the exports to each source begin.
    """

    indptr: _Int64s
    indices: _Int32s
    sq_distances: _Float32s
    sources: _Int64s
    ghost_bounds: _Int64s
    export_nodes: _Int32s
    export_bounds: _Int64s

    @property
    def rows(self) -> tuple[_Int64s, _Int32s, _Float32s]:
        """(indptr, indices, sq_distances), as kernels take them."""
        return self.indptr, self.indices, self.sq_distances

    @property
    def n_ghosts(self) -> int:
        """How many ghosts there are, g."""
        return int(self.ghost_bounds[-1])


def cut_block(partition: int, indptr: _Int64s, neighbors: _Int64s, sq_distances: _Float32s) -> Block:
    """The block of a partition.

    Args:
        partition: its number.
        indptr: int64 [n+1].
        neighbors: int64 [e], node ids.
        sq_distances: float32 [e].

    Raises:
        UserError: too many nodes and ghosts for one partition.
    """
    n = len(indptr) - 1
    ghost_ids = _remote(neighbors, partition)
    n_cut = len(ghost_ids)
    ghost_ids = distinct(ghost_ids)
    if n + len(ghost_ids) >= 2**31 - 1:
        raise UserError(
            f"partition {partition}: {n} nodes and {len(ghost_ids)} ghosts, expected fewer than 2**31"
        )
    owner_G = (ghost_ids >> INDEX_BITS).astype(np.int32)
    # Ghosts are sorted by (owner, index there). The owner lists its exports to us in the same
    # order, because the graph is symmetric: both sides derive the slots without a word.
    first = np.flatnonzero(owner_G[1:] != owner_G[:-1]) + 1
    ghost_bounds = np.concatenate([[0], first, [len(ghost_ids)]]) if len(ghost_ids) else np.zeros(1, np.int64)
    sources = owner_G[ghost_bounds[:-1]].astype(np.int64)
    del owner_G
    indices = np.empty(len(neighbors) + n_cut, np.int32)
    for lo in range(0, len(neighbors), _AT_ONCE):
        indices[lo : min(lo + _AT_ONCE, len(neighbors))] = _local(
            neighbors[lo : lo + _AT_ONCE], partition, n, ghost_ids
        )
    n_ghosts = len(ghost_ids)
    del ghost_ids
    export_nodes, export_bounds = _exports(indptr, neighbors, partition, sources)
    full_indptr, distances = _ghost_rows(indptr, indices, sq_distances, n_ghosts)
    return Block(full_indptr, indices, distances, sources, ghost_bounds, export_nodes, export_bounds)


def distinct(values: _Int64s) -> _Int64s:
    """What `np.unique` gives, of an array that is sorted in place: no copy of it, no table of hashes."""
    values.sort()
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def _local(neighbors: _Int64s, partition: int, n: int, ghost_ids: _Int64s) -> _Int32s:
    """Node ids as local indices."""
    local: _Int32s = (neighbors & (2**INDEX_BITS - 1)).astype(np.int32)
    cut = np.flatnonzero((neighbors >> INDEX_BITS) != partition)
    ids = neighbors[cut]
    order = np.argsort(ids)
    local[cut[order]] = n + np.searchsorted(ghost_ids, ids[order])
    return local


@kernel
def _remote(neighbors: _Int64s, partition: int) -> _Int64s:
    """The ids that lead to other partitions, int64 [c]."""
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
def _exports(
    indptr: _Int64s, neighbors: _Int64s, partition: int, sources: _Int64s
) -> tuple[_Int32s, _Int64s]:
    """(export_nodes, export_bounds) of `Block`."""
    bounds = np.zeros(len(sources) + 1, np.int64)
    latest = np.empty(len(sources), np.int64)
    nodes = np.empty(0, np.int32)
    for fill in (False, True):
        latest[:] = -1
        for i in range(len(indptr) - 1):
            for e in range(indptr[i], indptr[i + 1]):
                owner = neighbors[e] >> INDEX_BITS
                if owner == partition:
                    continue
                source = np.searchsorted(sources, owner)
                if latest[source] == i:
                    continue
                latest[source] = i
                if fill:
                    nodes[bounds[source]] = i
                    bounds[source] += 1
                else:
                    bounds[source + 1] += 1
        if not fill:
            for source in range(len(sources)):
                bounds[source + 1] += bounds[source]
            nodes = np.empty(bounds[-1], np.int32)
    # Each has moved on to where the next begins.
    for source in range(len(sources) - 1, 0, -1):
        bounds[source] = bounds[source - 1]
    if len(sources):
        bounds[0] = 0
    return nodes, bounds


@kernel
def _ghost_rows(
    indptr: _Int64s, indices: _Int32s, sq_distances: _Float32s, n_ghosts: int
) -> tuple[_Int64s, _Float32s]:
    """Add a row for each ghost: its neighbours among the own nodes.

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
    # A ghost's entry is first how many neighbours it has, then where its row begins, then, row
    # filled, where it ends.
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
