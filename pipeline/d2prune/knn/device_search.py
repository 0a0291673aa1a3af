"""List search on a torch device, including the canonical distances.

Reads float32 rows from the host; updates a `TopK` on the host with the same bits as
`lists.search_lists`. The product of a list and its visitors stays on the device: the bound of
`products` marks the pairs it cannot exclude, and their canonical distances are computed there too.
Only the nearest found are copied back. Kernels are few and large, because a launch takes as long as
a small product. For the same reason rows are rounded once, without a centre: half a unit in the
last place of float16 is small compared with the gaps between neighbours of unit norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2prune.knn.block_search import NO_POSITION, TopK
from d2prune.knn.distances import LANES
from d2prune.knn.lists import ListRows, Visits, visited_lists
from d2prune.knn.products import accumulation
from d2prune.knn.projections import ProjectedRows

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

TILE_QUERIES = 32_768
TILE_MEMBERS = 4_096
# Members on the device at a time: one transfer and a few kernels serve many lists.
WINDOW = 2**18
# Pairs whose float64 differences are on the device at a time.
PAIRS = 2**18
# Candidates of one query that are merged at a time.
_WIDTH = 32
# Share of the GPU's free memory that the query matrix may take; a larger one is sent tile by tile.
_HELD_SHARE = 0.5
# Relative margin, larger than the float32 rounding of any formula below.
_MARGIN = 2.0**-18


@dataclass(frozen=True)
class _Rows:
    """Rows on the device.

    Attributes:
        exact: float32 [R, D].
        rounded: [R, D], of the products' type.
        sq_norms: float32 [R], squared norms of the rounded rows.
        errors: float32 [R], upper bounds of the norm of the rounding error.
    """

    exact: torch.Tensor
    rounded: torch.Tensor
    sq_norms: torch.Tensor
    errors: torch.Tensor

    @classmethod
    def send(cls, rows_RD: Float32, device: torch.device, dtype: torch.dtype) -> _Rows:
        """Send rows to the device and round them there."""
        exact = torch.from_numpy(np.ascontiguousarray(rows_RD)).to(device)
        rounded = torch.empty_like(exact, dtype=dtype)
        sq_norms, errors = exact.new_empty(len(exact)), exact.new_empty(len(exact))
        for start in range(0, len(exact), WINDOW):
            part = slice(start, start + WINDOW)
            rounded[part] = exact[part]
            back = rounded[part].float()
            sq_norms[part] = (back * back).sum(1)
            taken = (exact[part] - back).norm(dim=1) * (1 + exact.shape[1] * 2.0**-22)
            errors[part] = taken + 2.0**-22 * sq_norms[part].sqrt() + 1e-30
        return cls(exact, rounded, sq_norms, errors)

    def __getitem__(self, index: torch.Tensor | slice) -> _Rows:
        return _Rows(self.exact[index], self.rounded[index], self.sq_norms[index], self.errors[index])


class DeviceSearch:
    """A `lists.ListSearch` on one device; keeps the query matrix there between calls."""

    def __init__(self, device: str | torch.device, dtype: torch.dtype = torch.float16) -> None:
        """Choose the device and the type of the products.

        Args:
            device: "cuda", "cuda:1", ...; "cpu" works but is slow.
            dtype: float16 (for rows of norm up to 100; the tightest bound of the fast types),
                bfloat16 or float32. The device must accumulate in float32, as tensor cores do.
        """
        self.device, self.dtype = torch.device(device), dtype
        self._host: Float32 | None = None
        self._held: _Rows | None = None

    @torch.no_grad()
    def __call__(
        self,
        lists: ListRows,
        queries_QD: Float32,
        visits: Visits,
        top: TopK,
        projected: ProjectedRows | None = None,
    ) -> None:
        """Compare queries with the members of the lists they visit; ignores projections."""
        held = self._hold(queries_QD)
        distances_QK, positions_QK = self._send(top.sq_distances), self._send(top.positions)
        low = high = 0
        for start, stop, visiting in _split_tiles(lists.indptr, visits):
            if stop > high:
                low, high = start, min(start + max(WINDOW, stop - start), int(lists.indptr[-1]))
                window = _Rows.send(lists.read_rows(low, high), self.device, self.dtype)
                positions_W = self._send(lists.positions[low:high])
            inside = slice(start - low, stop - low)
            for first in range(0, len(visiting), TILE_QUERIES):
                host_T = visiting[first : first + TILE_QUERIES]
                index_T = self._send(host_T)
                queries = (
                    _Rows.send(queries_QD[host_T], self.device, self.dtype) if held is None else held[index_T]
                )
                tile = _Tile(
                    queries, window[inside], positions_W[inside], distances_QK[index_T], positions_QK[index_T]
                )
                tile.search()
                distances_QK[index_T], positions_QK[index_T] = tile.distances_TK, tile.positions_TK
        top.sq_distances[:], top.positions[:] = distances_QK.cpu().numpy(), positions_QK.cpu().numpy()

    def _hold(self, queries_QD: Float32) -> _Rows | None:
        if self._host is not queries_QD:
            self._host = self._held = None
            n_bytes = queries_QD.size * (4 + self.dtype.itemsize)
            if self.device.type != "cuda" or n_bytes < _HELD_SHARE * torch.cuda.mem_get_info(self.device)[0]:
                self._held = _Rows.send(queries_QD, self.device, self.dtype)
            self._host = queries_QD
        return self._held

    def _send(self, array: NDArray[np.generic]) -> torch.Tensor:
        sent: torch.Tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device, copy=True)
        return sent


def _split_tiles(indptr: Int64, visits: Visits) -> Iterator[tuple[int, int, Int64]]:
    """Yield (first row, end, queries) of each visited list, in pieces of TILE_MEMBERS rows."""
    for _, start, stop, visiting in visited_lists(indptr, visits):
        for first in range(start, stop, TILE_MEMBERS):
            yield first, min(first + TILE_MEMBERS, stop), visiting


def _multiply(queries: _Rows, members: _Rows) -> tuple[torch.Tensor, float]:
    """Return float32 products of the rounded rows, and the relative error of their final rounding."""
    a, b = queries.rounded, members.rounded
    on_cuda = a.device.type == "cuda"
    if a.dtype == torch.float32:
        if on_cuda and torch.backends.cuda.matmul.allow_tf32:
            return (a.double() @ b.double().T).float(), 2.0**-23
        return a @ b.T, 0.0
    if on_cuda:
        return torch.mm(a, b.T, out_dtype=torch.float32), 0.0
    return (a @ b.T).float(), 1.01 * 2.0 ** (-11 if a.dtype == torch.float16 else -8)


class _Tile:
    """Queries and members on the device, and the K nearest so far of these queries."""

    def __init__(
        self,
        queries: _Rows,
        members: _Rows,
        positions_M: torch.Tensor,
        distances_TK: torch.Tensor,
        positions_TK: torch.Tensor,
    ) -> None:
        self._queries, self._members, self._positions_M = queries, members, positions_M
        self.distances_TK, self.positions_TK = distances_TK, positions_TK
        self._errors_T = queries.errors + members.errors.max()
        # The constant term of `_thresholds`, less the accumulation error of the products.
        slack_T = accumulation(queries.exact.shape[1]) * (queries.sq_norms + members.sq_norms.max()) + 1e-30
        self._highest_T = queries.sq_norms / 2 - slack_T * (1 + _MARGIN)

    def search(self) -> None:
        """Compare all queries with all members."""
        upper_TM, output = _multiply(self._queries, self._members)
        if output:
            upper_TM += output * upper_TM.abs()
        upper_TM -= self._members.sq_norms * 0.5
        near_TM = upper_TM >= self._thresholds(slice(None))[:, None]
        n_best = self.distances_TK.shape[1]
        many = (near_TM.sum(1) > n_best).nonzero()[:, 0]
        if len(many):
            # The largest bounds first: their distances tighten the threshold for all others.
            upper_SM = upper_TM[many]
            largest_SK = upper_SM.topk(n_best, dim=1).indices
            self._merge(many, largest_SK)
            upper_SM.scatter_(1, largest_SK, -torch.inf)
            near_TM[many] = upper_SM >= self._thresholds(many)[:, None]
            del upper_SM
        pairs_E2 = near_TM.nonzero()
        if len(pairs_E2):
            self._merge_pairs(pairs_E2)

    def _thresholds(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Return the least product - |b'|^2/2 that a member within the K-th distance so far can have."""
        reach = (self.distances_TK[rows, -1].sqrt() + self._errors_T[rows]) ** 2
        return self._highest_T[rows] - reach * (0.5 * (1 + _MARGIN))

    def _merge(self, rows_S: torch.Tensor, members_SC: torch.Tensor) -> None:
        """Compare some queries with C members each."""
        n_rows, width = members_SC.shape
        distances = self._sq_distances(rows_S.repeat_interleave(width), members_SC.reshape(-1))
        self._insert(rows_S, distances.reshape(n_rows, width), self._positions_M[members_SC])

    def _merge_pairs(self, pairs_E2: torch.Tensor) -> None:
        """Compare pairs, int64 [E, 2] of (query, member) ordered by query, E >= 1."""
        distances_E = self._sq_distances(pairs_E2[:, 0], pairs_E2[:, 1])
        positions_E = self._positions_M[pairs_E2[:, 1]]
        rows_U, group_E, counts_U = torch.unique_consecutive(
            pairs_E2[:, 0], return_inverse=True, return_counts=True
        )
        slot_E = torch.arange(len(pairs_E2), device=group_E.device) - (counts_U.cumsum(0) - counts_U)[group_E]
        for first in range(0, int(counts_U.max()), _WIDTH):
            chosen = ((slot_E >= first) & (slot_E < first + _WIDTH)).nonzero()[:, 0]
            at = group_E[chosen], slot_E[chosen] - first
            width = min(_WIDTH, int(counts_U.max()) - first)
            distances_UC = distances_E.new_full((len(rows_U), width), torch.inf)
            positions_UC = positions_E.new_full((len(rows_U), width), NO_POSITION)
            distances_UC[at], positions_UC[at] = distances_E[chosen], positions_E[chosen]
            self._insert(rows_U, distances_UC, positions_UC)

    def _insert(self, rows_S: torch.Tensor, distances_SC: torch.Tensor, positions_SC: torch.Tensor) -> None:
        """Merge new candidates of some queries into their K least (distance, position)."""
        n_best = self.distances_TK.shape[1]
        distances = torch.cat([self.distances_TK[rows_S], distances_SC], 1)
        positions = torch.cat([self.positions_TK[rows_S], positions_SC], 1)
        positions, order = positions.sort(dim=1)
        distances, by_distance = distances.gather(1, order).sort(dim=1, stable=True)
        self.distances_TK[rows_S] = distances[:, :n_best]
        self.positions_TK[rows_S] = positions.gather(1, by_distance)[:, :n_best]

    def _sq_distances(self, rows_E: torch.Tensor, members_E: torch.Tensor) -> torch.Tensor:
        """Return the canonical squared distances of pairs, float32 [E].

        The terms are those of `distances.sq_distance`. Where no order of summation can change the
        rounded sum, any order is used; the other pairs, about 1 in 100,000, are summed again in the
        canonical order.
        """
        out = self.distances_TK.new_empty(len(rows_E))
        error = 4 * self._queries.exact.shape[1] * 2.0**-53
        for start in range(0, len(out), PAIRS):
            part = slice(start, start + PAIRS)
            squares_ED = self._queries.exact[rows_E[part]].double()
            squares_ED -= self._members.exact[members_E[part]]
            squares_ED *= squares_ED
            totals_E = squares_ED.sum(1)
            out[part] = totals_E
            unsure = ((totals_E * (1 - error)).float() != (totals_E * (1 + error)).float()).nonzero()[:, 0]
            if len(unsure):
                out[start + unsure] = _lane_sums(squares_ED[unsure]).float()
        return out


def _lane_sums(squares_ED: torch.Tensor) -> torch.Tensor:
    """Return float64 [E], summed in the order of `distances.sq_distance`.

    Each operation is a separate kernel, so that none are fused.
    """
    n_dims = squares_ED.shape[1]
    in_lanes = n_dims - n_dims % LANES
    lanes = squares_ED.new_zeros(len(squares_ED), LANES)
    for i in range(0, in_lanes, LANES):
        lanes += squares_ED[:, i : i + LANES]
    while lanes.shape[1] > 1:
        lanes = lanes[:, ::2] + lanes[:, 1::2]
    totals_E = lanes[:, 0]
    for i in range(in_lanes, n_dims):
        totals_E = totals_E + squares_ED[:, i]
    return totals_E
