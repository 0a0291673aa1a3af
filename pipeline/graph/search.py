"""Block search: the exact nearest members of a list for a block of queries, whatever the fast products round.

Reads float32 rows; keeps, for each query, its K best (squared distance, canonical position) in a `TopK`. Invariant:
after any sequence of blocks a query holds exactly the K smallest pairs (canonical d2, canonical position) of all
members it met, ties to the lower position. Hence the result depends on which members a query met, and on nothing else:
not on block shapes, order, threads, precision or machine.

How: one matrix product per (queries x members) tile, then one pass over it. An element is re-ranked with the canonical
distance unless the bound of `products` proves it worse than the query's K-th best so far. A query that comes with good
neighbours (from its own list, or as a bound carried from another partition) excludes nearly all of a block this way, so
no top-k over the product is ever taken: a `topk` cost as much as the product itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.graph.distances import sq_distance
from pipeline.graph.products import Precision, Rounded, accumulation, best_precision, multiply, output_error, round_rows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

NO_POSITION = np.iinfo(np.int64).max
# A tile's product (1,024 x 1,024 bfloat16 = 2 MB) stays near the second-level cache; memory does not grow with a list.
TILE_QUERIES = 1024
_STRIP = 64
TILE_MEMBERS = 1024


@dataclass(frozen=True)
class TopK:
    """The K nearest so far of Q queries, best first; changed in place by `search_block`.

    Attributes:
        sq_distances: float32 [Q, K], ascending.
        positions: int64 [Q, K], canonical positions; NO_POSITION where nothing was found yet.
    """

    sq_distances: Float32
    positions: Int64

    @classmethod
    def empty(cls, n_queries: int, n_neighbors: int, bounds_Q: Float32 | None = None) -> TopK:
        """Return a state with nothing found.

        Args:
            n_queries: Q.
            n_neighbors: K.
            bounds_Q: float32 [Q], squared distances beyond which nothing is wanted (inclusive); none by default.

        Returns:
            A state whose unfilled slots hold the bound.
        """
        sq_distances = np.full((n_queries, n_neighbors), np.inf, np.float32)
        if bounds_Q is not None:
            sq_distances[:] = bounds_Q[:, None]
        return cls(sq_distances, np.full((n_queries, n_neighbors), NO_POSITION))


@dataclass(frozen=True)
class Members:
    """The members of one list, tiled and rounded once for all the query blocks that meet them.

    Attributes:
        rows: float32 [M, D].
        positions: int64 [M], canonical positions.
        centre: float32 [D], what rounding subtracts.
        tiles: (start, stop, rounded) for each tile of `rows`.
    """

    rows: Float32
    positions: Int64
    centre: Float32
    precision: Precision
    tiles: tuple[tuple[int, int, Rounded], ...]

    @classmethod
    def prepare(
        cls, rows_MD: Float32, positions_M: Int64, centre_D: Float32 | None = None, precision: Precision | None = None
    ) -> Members:
        """Round the members of a list.

        Args:
            rows_MD: float32 [M, D], contiguous.
            positions_M: int64 [M].
            centre_D: float32 [D]; the list's centroid is good, None takes the mean. It changes speed only.
            precision: None takes the fastest of this machine. It changes speed only.

        Returns:
            The prepared members.
        """
        precision = precision or best_precision()
        if centre_D is None:
            centre_D = rows_MD.mean(axis=0) if len(rows_MD) else np.zeros(rows_MD.shape[1], np.float32)
        tiles = []
        for start in range(0, len(rows_MD), TILE_MEMBERS):
            stop = min(start + TILE_MEMBERS, len(rows_MD))
            tiles.append((start, stop, round_rows(rows_MD, np.arange(start, stop), centre_D, precision)))
        return cls(rows_MD, positions_M, centre_D, precision, tuple(tiles))


def search_block(queries_ND: Float32, index_Q: Int64, members: Members, top: TopK) -> None:
    """Let a block of queries meet all members of a list; update their nearest in place.

    A member must meet a query once: nothing looks for repetitions.

    Args:
        queries_ND: float32 [N, D], contiguous.
        index_Q: int64 [Q], the rows of `queries_ND` and `top` in this block, each once.
        members: the list.
        top: state of N queries, changed in place.
    """
    n_dims = queries_ND.shape[1]
    relative, output = np.float32(accumulation(n_dims)), np.float32(output_error(members.precision))
    for low in range(0, len(index_Q), TILE_QUERIES):
        index_T = index_Q[low : low + TILE_QUERIES]
        rounded = round_rows(queries_ND, index_T, members.centre, members.precision, queries=True)
        for start, stop, tile in members.tiles:
            _rank_tile(
                multiply(rounded, tile),
                members.precision == "bfloat16",
                rounded.sq_norms,
                rounded.errors,
                tile.sq_norms,
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


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _threshold(sq_bound: float, sq_norm: float, error: float, slack: float) -> np.float32:
    """Return the least product - |b'|^2/2 that a member within `sq_bound` of the query can show."""
    if sq_bound == np.inf:
        return np.float32(-np.inf)
    # 1 + 2^-20 covers the canonical distance's own rounding and this formula's.
    reach = (np.sqrt(np.float64(sq_bound)) + error) ** 2 * (1.0 + 2.0**-20)
    return np.float32((sq_norm - reach) / 2.0 - slack)


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def insert(distances_K: Float32, positions_K: Int64, distance: np.float32, position: int) -> None:
    """Put a pair that beats the last into its place among K ascending pairs; the last drops out.

    Args:
        distances_K: float32 [K], changed in place.
        positions_K: int64 [K], changed in place.
        distance: canonical squared distance.
        position: canonical position.
    """
    slot = distances_K.shape[0] - 1
    while slot > 0 and (
        distance < distances_K[slot - 1] or (distance == distances_K[slot - 1] and position < positions_K[slot - 1])
    ):
        distances_K[slot] = distances_K[slot - 1]
        positions_K[slot] = positions_K[slot - 1]
        slot -= 1
    distances_K[slot] = distance
    positions_K[slot] = position


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _widen_and_count(
    source_M: NDArray[np.uint16] | Float32,
    are_bits: bool,
    output: np.float32,
    half_M: Float32,
    threshold: np.float32,
    product_M: Float32,
) -> int:
    """Fill `product_M` with float32 products; return how many members the bound cannot exclude."""
    passing = 0
    if are_bits:
        for m in range(product_M.shape[0]):
            product = np.uint32(np.uint32(source_M[m]) << np.uint32(16)).view(np.float32)
            product_M[m] = product
            passing += product + output * abs(product) - half_M[m] >= threshold
    else:
        for m in range(product_M.shape[0]):
            product = np.float32(source_M[m])
            product_M[m] = product
            passing += product + output * abs(product) - half_M[m] >= threshold
    return passing


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _keep_largest(product_M: Float32, output: np.float32, half_M: Float32, likely_K: Float32) -> None:
    """Fill `likely_K` with the K largest lower bounds, ascending; -inf where there are fewer."""
    likely_K[:] = -np.inf
    n_best, n_members = likely_K.shape[0], product_M.shape[0]
    for start in range(0, n_members, _STRIP):
        stop = min(start + _STRIP, n_members)
        larger = 0
        for m in range(start, stop):
            larger += product_M[m] - output * abs(product_M[m]) - half_M[m] > likely_K[0]
        if larger == 0:
            continue
        for m in range(start, stop):
            value = product_M[m] - output * abs(product_M[m]) - half_M[m]
            if value > likely_K[0]:
                slot = 0
                while slot < n_best - 1 and value > likely_K[slot + 1]:
                    likely_K[slot] = likely_K[slot + 1]
                    slot += 1
                likely_K[slot] = value


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rank_tile(
    product_QM: NDArray[np.uint16] | Float32,
    are_bits: bool,
    sq_norms_Q: Float32,
    errors_Q: Float32,
    sq_norms_M: Float32,
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
    n_queries, n_members = index_Q.shape[0], positions_M.shape[0]
    n_best = best_distances.shape[1]
    half_M = sq_norms_M * np.float32(0.5)
    largest = sq_norms_M.max()
    likely_K = np.empty(n_best, np.float32)
    product_M = np.empty(n_members, np.float32)
    for r in range(n_queries):
        row = index_Q[r]
        distances_K, positions_K = best_distances[row], best_positions[row]
        error = np.float64(errors_Q[r]) + member_error
        slack = relative * (np.float64(sq_norms_Q[r]) + largest)
        bound = distances_K[n_best - 1]
        threshold = _threshold(bound, sq_norms_Q[r], error, slack)
        passing = _widen_and_count(product_QM[r], are_bits, output, half_M, threshold, product_M)
        if passing == 0:
            continue
        if passing > n_best:
            # The K-th largest lower bound of the products caps the K-th distance before any is computed.
            _keep_largest(product_M, output, half_M, likely_K)
            sq_image = max(sq_norms_Q[r] - 2.0 * likely_K[0] + 2.0 * slack, 0.0)
            cap = (np.sqrt(sq_image) + error) ** 2 * (1.0 + 2.0**-20)
            if cap < bound:
                threshold = max(threshold, _threshold(cap, sq_norms_Q[r], error, slack))
        query_D = queries_ND[row]
        for m in range(n_members):
            if product_M[m] + output * abs(product_M[m]) - half_M[m] < threshold:
                continue
            distance = sq_distance(query_D, members_MD[m])
            position = positions_M[m]
            if distance < bound or (distance == bound and position < positions_K[n_best - 1]):
                insert(distances_K, positions_K, distance, position)
                if distances_K[n_best - 1] < bound:
                    bound = distances_K[n_best - 1]
                    threshold = max(threshold, _threshold(bound, sq_norms_Q[r], error, slack))
