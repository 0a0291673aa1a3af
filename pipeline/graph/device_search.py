"""The search of lists on a torch device, canonical distances included.

Reads float32 rows of the host; updates a `TopK` of the host exactly as `lists.search_lists` does: same bits. A list's
product with its visitors stays on the device, and so does all that is computed from it: the bound of `products` marks
the pairs that it cannot exclude, and these get their canonical distance in float64, in the order of
`distances.sq_distance`, one operation a kernel, so that nothing is fused. What comes back is what was found.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.graph.distances import LANES
from pipeline.graph.images import Images
from pipeline.graph.lists import SomeLists, Visits, met
from pipeline.graph.products import accumulation
from pipeline.graph.search import NO_POSITION, TopK

Float32 = NDArray[np.float32]

TILE_QUERIES = 32_768
TILE_MEMBERS = 4_096
# Pairs whose float64 differences are on the device at a time, and how many of one query are merged at once.
PAIRS = 2**18
_WIDTH = 32
# Share of the card's free memory that a query matrix may take; of a larger one, each tile is sent when it is needed.
_HELD_SHARE = 0.5
# Relative, above what any formula below rounds in float32.
_ROOM = 2.0**-18

Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class DeviceSearch:
    """A `lists.ListSearch` on one device; keeps the query matrix there from one call to the next."""

    def __init__(self, device: str | torch.device, dtype: torch.dtype = torch.float16) -> None:
        """Choose where and how.

        Args:
            device: "cuda", "cuda:1", ...; "cpu" works and is slow.
            dtype: of the products: float16 (rows of norm up to 100; tightest of the fast ones), bfloat16 or float32.
                Sums must be kept in float32, as tensor cores do.
        """
        self.device, self.dtype = torch.device(device), dtype
        self._host: Float32 | None = None
        self._held: torch.Tensor | None = None

    @torch.no_grad()
    def __call__(
        self, lists: SomeLists, queries_QD: Float32, visits: Visits, top: TopK, images: Images | None = None
    ) -> None:
        """Let queries meet the members of the lists they visit. Products are cheap here: no use is made of images."""
        self._hold(queries_QD)
        best = self._sent(top.sq_distances), self._sent(top.positions)
        for number, start, stop, visiting in met(lists.indptr, visits):
            centre = self._sent(lists.centroids[number])
            index_V = self._sent(visiting)
            for first in range(start, stop, TILE_MEMBERS):
                last = min(first + TILE_MEMBERS, stop)
                members_MD = self._sent(lists.rows_of(first, last))
                positions_M = self._sent(lists.positions[first:last])
                members = self._round(members_MD, centre)
                for low in range(0, len(visiting), TILE_QUERIES):
                    index_T = index_V[low : low + TILE_QUERIES]
                    queries_TD = self._queries(queries_QD, visiting[low : low + TILE_QUERIES], index_T)
                    tile = _Tile(queries_TD, members_MD, positions_M, best[0][index_T], best[1][index_T])
                    self._search_tile(tile, self._round(queries_TD, centre), members)
                    best[0][index_T], best[1][index_T] = tile.distances_TK, tile.positions_TK
        top.sq_distances[:], top.positions[:] = best[0].cpu().numpy(), best[1].cpu().numpy()

    def _hold(self, queries_QD: Float32) -> None:
        if self._host is queries_QD:
            return
        self._host = self._held = None
        fits = self.device.type != "cuda" or (queries_QD.nbytes < _HELD_SHARE * torch.cuda.mem_get_info(self.device)[0])
        if fits:
            self._held = self._sent(queries_QD)
        self._host = queries_QD

    def _sent(self, array: NDArray[np.generic]) -> torch.Tensor:
        sent: torch.Tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device, copy=True)
        return sent

    def _queries(self, queries_QD: Float32, host_T: NDArray[np.int64], index_T: torch.Tensor) -> torch.Tensor:
        return self._sent(queries_QD[host_T]) if self._held is None else self._held[index_T]

    def _round(self, rows_RD: torch.Tensor, centre_D: torch.Tensor) -> Rounded:
        """Return rounded rows, their squared norms, and upper bounds of what rounding took away."""
        centred = rows_RD - centre_D
        rounded = centred.to(self.dtype)
        back = rounded.float()
        sq_norms = (back * back).sum(1)
        taken = (centred - back).norm(dim=1) * (1 + rows_RD.shape[1] * 2.0**-22)
        return rounded, sq_norms, taken + 2.0**-22 * (sq_norms.sqrt() + 2 * centre_D.norm()) + 1e-30

    def _multiply(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return float32 products and the relative error of their last rounding."""
        if self.dtype == torch.float32:
            if self.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
                return (a.double() @ b.double().T).float(), 2.0**-23
            return a @ b.T, 0.0
        if self.device.type == "cuda":
            return torch.mm(a, b.T, out_dtype=torch.float32), 0.0
        return (a @ b.T).float(), 1.01 * 2.0 ** (-11 if self.dtype == torch.float16 else -8)

    def _search_tile(self, tile: _Tile, queries: Rounded, members: Rounded) -> None:
        """Let a tile's queries meet its members."""
        (a, norms_a, errors_a), (b, norms_b, errors_b) = queries, members
        upper_TM, output = self._multiply(a, b)
        if output:
            upper_TM += output * upper_TM.abs()
        upper_TM -= norms_b * 0.5
        slack_T = accumulation(a.shape[1]) * (norms_a + norms_b.max()) + 1e-30
        error_T = errors_a + errors_b.max()

        def thresholds(rows: torch.Tensor | slice) -> torch.Tensor:
            """The least product - |b'|^2/2 that a member within the K-th distance so far can show."""
            reach = (tile.distances_TK[rows, -1].sqrt() + error_T[rows]) ** 2 * (1 + _ROOM)
            return (norms_a[rows] - reach) / 2 - slack_T[rows] * (1 + _ROOM)

        near_TM = upper_TM >= thresholds(slice(None))[:, None]
        n_best = tile.distances_TK.shape[1]
        many = (near_TM.sum(1) > n_best).nonzero()[:, 0]
        if len(many):
            # The likeliest first: their distances leave little for the others to pass.
            upper_SM = upper_TM[many]
            likely_SK = upper_SM.topk(n_best, dim=1).indices
            tile.merge(many, likely_SK)
            upper_SM.scatter_(1, likely_SK, -torch.inf)
            near_TM[many] = upper_SM >= thresholds(many)[:, None]
            del upper_SM
        pairs_E2 = near_TM.nonzero()
        if len(pairs_E2):
            tile.merge_pairs(pairs_E2)


class _Tile:
    """Queries and members on the device, and the K nearest of these queries."""

    def __init__(
        self,
        queries_TD: torch.Tensor,
        members_MD: torch.Tensor,
        positions_M: torch.Tensor,
        distances_TK: torch.Tensor,
        positions_TK: torch.Tensor,
    ) -> None:
        self._queries_TD, self._members_MD, self._positions_M = queries_TD, members_MD, positions_M
        self.distances_TK, self.positions_TK = distances_TK, positions_TK

    def merge(self, rows_S: torch.Tensor, members_SC: torch.Tensor) -> None:
        """Let some queries meet C members each."""
        n_rows, width = members_SC.shape
        distances = self._sq_distances(rows_S.repeat_interleave(width), members_SC.reshape(-1))
        self._insert(rows_S, distances.reshape(n_rows, width), self._positions_M[members_SC])

    def merge_pairs(self, pairs_E2: torch.Tensor) -> None:
        """Let the queries meet members, int64 [E, 2] (query, member) ordered by query, E >= 1."""
        distances_E = self._sq_distances(pairs_E2[:, 0], pairs_E2[:, 1])
        positions_E = self._positions_M[pairs_E2[:, 1]]
        rows_U, group_E, counts_U = torch.unique_consecutive(pairs_E2[:, 0], return_inverse=True, return_counts=True)
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
        """Keep the K least (distance, position) of what these queries had and what is new."""
        n_best = self.distances_TK.shape[1]
        distances = torch.cat([self.distances_TK[rows_S], distances_SC], 1)
        positions = torch.cat([self.positions_TK[rows_S], positions_SC], 1)
        positions, order = positions.sort(dim=1)
        distances, by_distance = distances.gather(1, order).sort(dim=1, stable=True)
        self.distances_TK[rows_S] = distances[:, :n_best]
        self.positions_TK[rows_S] = positions.gather(1, by_distance)[:, :n_best]

    def _sq_distances(self, rows_E: torch.Tensor, members_E: torch.Tensor) -> torch.Tensor:
        """Canonical squared distances of pairs, float32 [E]; see `distances.sq_distance`."""
        out = torch.empty(len(rows_E), dtype=torch.float32, device=rows_E.device)
        n_dims = self._queries_TD.shape[1]
        whole = n_dims - n_dims % LANES
        for start in range(0, len(out), PAIRS):
            part = slice(start, start + PAIRS)
            squares_ED = self._queries_TD[rows_E[part]].double() - self._members_MD[members_E[part]].double()
            squares_ED *= squares_ED
            lanes = squares_ED.new_zeros(len(squares_ED), LANES)
            for i in range(0, whole, LANES):
                lanes += squares_ED[:, i : i + LANES]
            while lanes.shape[1] > 1:
                lanes = lanes[:, ::2] + lanes[:, 1::2]
            total = lanes[:, 0]
            for i in range(whole, n_dims):
                total = total + squares_ED[:, i]
            out[part] = total
        return out
