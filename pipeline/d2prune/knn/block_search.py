"""Block search: the exact nearest members of a list for a block of queries, from fast rounded products.

Reads float32 rows; keeps the K best (squared distance, canonical position) of each query in a
`TopK`, and with `Offers` also the K best queries of each member. Invariant: after any sequence of
blocks, a row holds exactly the K smallest pairs (canonical distance, canonical position) of all rows
it was compared with, ties to the lower position. The result depends only on which rows those were,
never on block shapes, order, threads, precision or machine.

Method: one matrix product per tile of queries x members, of the rows or of their projections, then
one pass over it. An element gets its canonical distance unless the bound of `products` proves it
worse than the query's K-th best so far. For a query that already has close neighbours (from its
home list) this excludes nearly all of a block. A query
without close neighbours first takes the K members with the largest products. Members that take
queries have their own bounds: an element is looked at if either side may take the other.
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
from d2prune.knn.top_k import NO_POSITION, STRIP, TopK, find_largest, take

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# A tile's product (1,024 x 1,024 bfloat16 = 2 MB) about fits the second-level cache, and memory
# does not grow with the list.
TILE_QUERIES = 1024
TILE_MEMBERS = 1024
_QUERY_TOOK, _MEMBER_TOOK = 1, 2
_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Offers:
    """Queries as candidates of the members, so that both rows of a pair may take each other.

    Attributes:
        positions: int64 [N], canonical positions of the queries; NO_POSITION for those not offered.
        top: nearest so far of the members, [M, K], updated in place. It may be the queries' own.
        first: number of the member in row 0 of `top`.
    """

    positions: Int64
    top: TopK
    first: int = 0

    def to(self, start: int, stop: int) -> Offers:
        """Return the offers to the members [start, stop) alone."""
        return Offers(self.positions, self.top[start - self.first : stop - self.first])


@dataclass(frozen=True)
class Visited:
    """The lists that queries and members visit; pairs of which neither visits the other's are left out.

    Attributes:
        queries: int32 [N, P], home list first.
        members: int32 [M, P].
    """

    queries: NDArray[np.int32]
    members: NDArray[np.int32]


_ALL = Visited(np.empty((0, 0), np.int32), np.empty((0, 0), np.int32))


@dataclass(frozen=True)
class Members:
    """The members of one list, tiled and rounded once for all query blocks.

    Attributes:
        rows: float32 [M, D].
        positions: int64 [M], canonical positions; NO_POSITION for rows that no query takes.
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
    offers: Offers | None = None,
    visited: Visited | None = None,
) -> None:
    """Compare a block of queries with all members of a list; update their nearest in place.

    Args:
        queries_ND: float32 [N, D], contiguous.
        index_Q: int64 [Q], the rows of `queries_ND` and `top` in this block, each once.
        members: the list.
        top: nearest so far of the N queries, updated in place.
        projected: projections of the N queries, if the members were prepared with theirs.
        offers: the queries as candidates of the members; None: the members take nothing.
        visited: leaves out pairs; None: none.
    """
    n_best = top.positions.shape[1]
    offers = offers or Offers(_NOTHING, TopK.empty(0, n_best))
    visited = visited or _ALL
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
                rounded.errors.max(),
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
                offers.positions,
                offers.top.sq_distances[start:stop],
                offers.top.positions[start:stop],
                visited.queries,
                visited.members[start:stop],
            )


@kernel
def _threshold(sq_bound: float, sq_norm: float, error: float, slack: float) -> np.float32:
    """Return the least product - |b'|^2/2 that a member within `sq_bound` of the query can have."""
    if sq_bound == np.inf:
        return np.float32(-np.inf)
    if sq_bound < 0.0:
        return np.float32(np.inf)
    # 1 + 2^-20 covers the rounding of the canonical distance and of this formula.
    reach = (np.sqrt(np.float64(sq_bound)) + error) ** 2 * (1.0 + 2.0**-20)
    return np.float32((sq_norm - reach) / 2.0 - slack)


@kernel
def _lift(sq_bound: float, error: float) -> np.float32:
    """Return by how much product - |b'|^2/2 may fall short of |a'|^2/2 if the member takes the query."""
    if sq_bound == np.inf or sq_bound < 0.0:
        return np.float32(sq_bound)
    return np.float32((np.sqrt(np.float64(sq_bound)) + error) ** 2 * (1.0 + 2.0**-20) / 2.0)


@kernel
def _bound_products(
    source_M: NDArray[np.uint16] | Float32,
    are_bits: bool,
    output: np.float32,
    half_M: Float32,
    threshold: np.float32,
    lift_M: Float32,
    least: np.float32,
    upper_M: Float32,
) -> tuple[int, int]:
    """Fill `upper_M` with upper bounds of product - |b'|^2/2.

    Returns:
        How many reach the threshold, and how many reach it or, with their lift, the least.
    """
    near, passing = 0, 0
    if are_bits:
        for m in range(upper_M.shape[0]):
            product = np.uint32(np.uint32(source_M[m]) << np.uint32(16)).view(np.float32)
            upper = product + output * abs(product) - half_M[m]
            upper_M[m] = upper
            near += upper >= threshold
            passing += (upper >= threshold) | (upper + lift_M[m] >= least)
    else:
        for m in range(upper_M.shape[0]):
            product = np.float32(source_M[m])
            upper = product + output * abs(product) - half_M[m]
            upper_M[m] = upper
            near += upper >= threshold
            passing += (upper >= threshold) | (upper + lift_M[m] >= least)
    return near, passing


@kernel
def _meet(visited_P: NDArray[np.int32], others_P: NDArray[np.int32]) -> bool:
    """Return whether one of two rows visits the other's home list."""
    for p in range(others_P.shape[0]):
        if others_P[p] == visited_P[0] or visited_P[p] == others_P[0]:
            return True
    return False


@kernel
def _rank_tile(
    product_QM: NDArray[np.uint16] | Float32,
    are_bits: bool,
    sq_norms_Q: Float32,
    errors_Q: Float32,
    query_error: np.float32,
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
    offered_N: Int64,
    member_distances: Float32,
    member_positions: Int64,
    visited_NP: NDArray[np.int32],
    visited_MP: NDArray[np.int32],
) -> None:
    """Compare the queries of a tile with its members, except those that the bounds exclude."""
    n_queries, n_members, n_best = index_Q.shape[0], positions_M.shape[0], best_distances.shape[1]
    half_M = sq_norms_M * np.float32(0.5)
    largest_error = np.float64(query_error) + member_error
    lift_M = np.full(n_members, -np.inf, np.float32)
    if member_distances.shape[0] > 0:
        for m in range(n_members):
            lift_M[m] = _lift(member_distances[m, n_best - 1], largest_error)
    values_K, members_K = np.empty(n_best, np.float32), np.empty(n_best, np.int64)
    upper_M = np.empty(n_members, np.float32)
    for r in range(n_queries):
        row = index_Q[r]
        query_D, distances_K, positions_K = queries_ND[row], best_distances[row], best_positions[row]
        error = np.float64(errors_Q[r]) + member_error
        slack = relative * (np.float64(sq_norms_Q[r]) + largest_sq_norm)
        # 2^-20 covers the rounding of bound plus lift: where the lift is large, nothing is near the least.
        least = np.float32(
            sq_norms_Q[r] / 2.0 - slack - 2.0**-20 * (np.float64(sq_norms_Q[r]) + largest_sq_norm)
        )
        threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)
        near, passing = _bound_products(
            product_QM[r], are_bits, output, half_M, threshold, lift_M, least, upper_M
        )
        if passing == 0:
            continue
        if near > n_best:
            # The largest bounds first: their distances tighten the threshold for all others.
            find_largest(upper_M, positions_M, values_K, members_K)
            for slot in range(n_best):
                m = members_K[slot]
                if m < 0:
                    continue
                took = _compare(
                    query_D, row, members_MD, positions_M, m, distances_K, positions_K,
                    offered_N, member_distances, member_positions, visited_NP, visited_MP,
                )  # fmt: skip
                upper_M[m] = -np.inf
                if took & _MEMBER_TOOK:
                    lift_M[m] = _lift(member_distances[m, n_best - 1], largest_error)
            threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)
        for start in range(0, n_members, STRIP):
            stop = min(start + STRIP, n_members)
            passing = 0
            for m in range(start, stop):
                passing += (upper_M[m] >= threshold) | (upper_M[m] + lift_M[m] >= least)
            if passing == 0:
                continue
            for m in range(start, stop):
                if upper_M[m] >= threshold or upper_M[m] + lift_M[m] >= least:
                    took = _compare(
                        query_D, row, members_MD, positions_M, m, distances_K, positions_K,
                        offered_N, member_distances, member_positions, visited_NP, visited_MP,
                    )  # fmt: skip
                    if took & _QUERY_TOOK:
                        threshold = _threshold(distances_K[n_best - 1], sq_norms_Q[r], error, slack)
                    if took & _MEMBER_TOOK:
                        lift_M[m] = _lift(member_distances[m, n_best - 1], largest_error)


@kernel
def _compare(
    query_D: Float32,
    row: int,
    members_MD: Float32,
    positions_M: Int64,
    m: int,
    distances_K: Float32,
    positions_K: Int64,
    offered_N: Int64,
    member_distances: Float32,
    member_positions: Int64,
    visited_NP: NDArray[np.int32],
    visited_MP: NDArray[np.int32],
) -> int:
    """Let a query and a member take each other; return which of them did."""
    members_take = member_distances.shape[0] > 0
    # Copies of a row are compared with its member alone: their number may be that of the parts.
    if positions_M[m] == NO_POSITION and (not members_take or offered_N[row] == NO_POSITION):
        return 0
    if visited_MP.shape[0] > 0 and not _meet(visited_NP[row], visited_MP[m]):
        return 0
    distance, took = sq_distance(query_D, members_MD[m]), 0
    if take(distances_K, positions_K, distance, positions_M[m]):
        took |= _QUERY_TOOK
    if members_take and take(member_distances[m], member_positions[m], distance, offered_N[row]):
        took |= _MEMBER_TOOK
    return took
