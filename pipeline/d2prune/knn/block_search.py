"""Block search: the exact nearest members of a list for a block of queries, from fast rounded products.

Reads float32 rows; keeps the K best (squared distance, canonical position) of each query in a
`TopK`. Invariant: after any sequence of blocks, a query holds exactly the K smallest pairs
(canonical distance, canonical position) of all members it was compared with, ties to the lower
position. The result depends only on which members those were, never on block shapes, order,
threads, precision or machine.

Method: one matrix product per tile of queries x members, of the rows or of their projections, then
one pass over it. An element gets its canonical distance unless the bound of `products` proves it
worse than the query's K-th best so far. For a query that already has close neighbours (from its
home list, or as a bound from another partition) this excludes nearly all of a block. A query
without close neighbours first takes the K members with the largest products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.knn.distances import sq_distance
from d2prune.knn.products import (
    Precision,
    Rounded,
    accumulation,
    best_precision,
    multiply,
    output_error,
    round_rows,
)
from d2prune.knn.projections import ProjectedRows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

NO_POSITION = np.iinfo(np.int64).max
# A tile's product (1,024 x 1,024 bfloat16 = 2 MB) about fits the second-level cache, and memory
# does not grow with the list.
TILE_QUERIES = 1024
TILE_MEMBERS = 1024
# Bounds that are tested together before any of them is looked at on its own.
_STRIP = 64


@dataclass(frozen=True)
class TopK:
    """The K nearest so far of Q queries, best first; `search_block` updates it in place.

    Attributes:
        sq_distances: float32 [Q, K], ascending.
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


@dataclass(frozen=True)
class Members:
    """The members of one list, tiled and rounded once for all query blocks.

    Attributes:
        rows: float32 [M, D].
        positions: int64 [M], canonical positions.
        centre: float32 [D], or as wide as a projection: subtracted before rounding.
        precision: of the rounded rows.
        tiles: (start, stop, rounded) for each tile of `rows`, or of their projections.
    """

    rows: Float32
    positions: Int64
    centre: Float32
    precision: Precision
    tiles: tuple[tuple[int, int, Rounded], ...]

    @classmethod
    def prepare(
        cls,
        rows_MD: Float32,
        positions_M: Int64,
        centre_D: Float32 | None = None,
        precision: Precision | None = None,
        projected: ProjectedRows | None = None,
    ) -> Members:
        """Round the members of a list.

        Args:
            rows_MD: float32 [M, D], contiguous.
            positions_M: int64 [M].
            centre_D: float32 [D], best near the list's centroid; None takes the mean. Changes speed
                only.
            precision: None takes the fastest of this machine. Changes speed only.
            projected: projections of the members; the queries then need theirs, of the same
                `Projection`. Changes speed only.
        """
        precision = precision or best_precision()
        compared = rows_MD if projected is None else projected.values
        if centre_D is None or projected is not None:
            centre_D = compared.mean(axis=0) if len(compared) else np.zeros(compared.shape[1], np.float32)
        tiles = []
        for start in range(0, len(rows_MD), TILE_MEMBERS):
            stop = min(start + TILE_MEMBERS, len(rows_MD))
            tiles.append(
                (start, stop, _round(compared, np.arange(start, stop), centre_D, precision, projected))
            )
        return cls(rows_MD, positions_M, centre_D, precision, tuple(tiles))


def _round(
    compared: Float32,
    index_R: Int64,
    centre: Float32,
    precision: Precision,
    projected: ProjectedRows | None,
    queries: bool = False,
) -> Rounded:
    rounded = round_rows(compared, index_R, centre, precision, queries)
    if projected is not None:
        rounded.errors[:] += projected.errors[index_R]
    return rounded


def search_block(
    queries_ND: Float32,
    index_Q: Int64,
    members: Members,
    top: TopK,
    projected: ProjectedRows | None = None,
) -> None:
    """Compare a block of queries with all members of a list; update their nearest in place.

    A query must be compared with a member only once: repetitions are not detected.

    Args:
        queries_ND: float32 [N, D], contiguous.
        index_Q: int64 [Q], the rows of `queries_ND` and `top` in this block, each once.
        members: the list.
        top: nearest so far of the N queries, updated in place.
        projected: projections of the N queries, if the members were prepared with theirs.
    """
    compared = queries_ND if projected is None else projected.values
    relative = np.float32(accumulation(compared.shape[1]))
    output = np.float32(output_error(members.precision))
    for low in range(0, len(index_Q), TILE_QUERIES):
        index_T = index_Q[low : low + TILE_QUERIES]
        rounded = _round(compared, index_T, members.centre, members.precision, projected, queries=True)
        for start, stop, tile in members.tiles:
            _rank_tile(
                multiply(rounded, tile),
                members.precision == "bfloat16",
                rounded.sq_norms,
                rounded.errors,
                tile.sq_norms,
                tile.sq_norms.max(),
                tile.errors.max(),
                relative,
                output,
                queries_ND,
                index_T,
                members.rows[start:stop],
                members.positions[start:stop],
                top.sq_distances,
                top.positions,
            )


@kernel
def _threshold(sq_bound: float, sq_norm: float, error: float, slack: float) -> np.float32:
    """Return the least product - |b'|^2/2 that a member within `sq_bound` of the query can have."""
    if sq_bound == np.inf:
        return np.float32(-np.inf)
    # 1 + 2^-20 covers the rounding of the canonical distance and of this formula.
    reach = (np.sqrt(np.float64(sq_bound)) + error) ** 2 * (1.0 + 2.0**-20)
    return np.float32((sq_norm - reach) / 2.0 - slack)


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
def _bound_products(
    source_M: NDArray[np.uint16] | Float32,
    are_bits: bool,
    output: np.float32,
    half_M: Float32,
    threshold: np.float32,
    upper_M: Float32,
) -> int:
    """Fill `upper_M` with upper bounds of product - |b'|^2/2; return how many reach the threshold."""
    passing = 0
    if are_bits:
        for m in range(upper_M.shape[0]):
            product = np.uint32(np.uint32(source_M[m]) << np.uint32(16)).view(np.float32)
            upper_M[m] = product + output * abs(product) - half_M[m]
            passing += upper_M[m] >= threshold
    else:
        for m in range(upper_M.shape[0]):
            product = np.float32(source_M[m])
            upper_M[m] = product + output * abs(product) - half_M[m]
            passing += upper_M[m] >= threshold
    return passing


@kernel
def _find_largest(upper_M: Float32, values_K: Float32, members_K: Int64) -> None:
    """Fill `members_K` with the members of the K largest bounds; `upper_M` has more than K entries."""
    values_K[:] = -np.inf
    n_best, n_members = values_K.shape[0], upper_M.shape[0]
    for start in range(0, n_members, _STRIP):
        stop = min(start + _STRIP, n_members)
        larger = 0
        for m in range(start, stop):
            larger += upper_M[m] > values_K[0]
        if larger == 0:
            continue
        for m in range(start, stop):
            value = upper_M[m]
            if value > values_K[0]:
                slot = 0
                while slot < n_best - 1 and value > values_K[slot + 1]:
                    values_K[slot] = values_K[slot + 1]
                    members_K[slot] = members_K[slot + 1]
                    slot += 1
                values_K[slot] = value
                members_K[slot] = m


@kernel
def _rank_tile(
    product_QM: NDArray[np.uint16] | Float32,
    are_bits: bool,
    sq_norms_Q: Float32,
    errors_Q: Float32,
    sq_norms_M: Float32,
    largest_sq_norm: np.float32,
    member_error: np.float32,
    relative: np.float32,
    output: np.float32,
    queries_ND: Float32,
    index_Q: Int64,
    members_MD: Float32,
    positions_M: Int64,
    best_distances: Float32,
    best_positions: Int64,
) -> None:
    """Compare the queries of a tile with its members, except those that the bound excludes."""
    n_queries, n_members = index_Q.shape[0], positions_M.shape[0]
    n_best = best_distances.shape[1]
    half_M = sq_norms_M * np.float32(0.5)
    values_K, members_K = np.empty(n_best, np.float32), np.empty(n_best, np.int64)
    upper_M = np.empty(n_members, np.float32)
    for r in range(n_queries):
        row = index_Q[r]
        query_D, distances_K, positions_K = queries_ND[row], best_distances[row], best_positions[row]
        error = np.float64(errors_Q[r]) + member_error
        slack = relative * (np.float64(sq_norms_Q[r]) + largest_sq_norm)
        threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)
        passing = _bound_products(product_QM[r], are_bits, output, half_M, threshold, upper_M)
        if passing == 0:
            continue
        if passing > n_best:
            # The largest bounds first: their distances tighten the threshold for all others.
            _find_largest(upper_M, values_K, members_K)
            for slot in range(n_best):
                m = members_K[slot]
                upper_M[m] = -np.inf
                _offer(query_D, members_MD[m], positions_M[m], distances_K, positions_K)
            threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)
        for start in range(0, n_members, _STRIP):
            stop = min(start + _STRIP, n_members)
            passing = 0
            for m in range(start, stop):
                passing += upper_M[m] >= threshold
            if passing == 0:
                continue
            for m in range(start, stop):
                if upper_M[m] >= threshold and _offer(
                    query_D, members_MD[m], positions_M[m], distances_K, positions_K
                ):
                    threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)


@kernel
def _offer(
    query_D: Float32, member_D: Float32, position: int, distances_K: Float32, positions_K: Int64
) -> bool:
    """Insert a member if it is among the K nearest so far; return whether it was."""
    last = distances_K.shape[0] - 1
    distance = sq_distance(query_D, member_D)
    if distance < distances_K[last] or (distance == distances_K[last] and position < positions_K[last]):
        insert(distances_K, positions_K, distance, position)
        return True
    return False
