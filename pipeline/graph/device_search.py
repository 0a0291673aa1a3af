"""Block search on a torch device: products and their filter on the accelerator, canonical distances on the host.

Reads float32 rows; updates a `TopK` on the host exactly as `search.search_block` does: same bits. Only the pairs which
the bound of `products` cannot exclude come back, a few a query: the product itself would not fit the bus (4 bytes per
2 D operations).
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from pipeline.graph.distances import sq_distance
from pipeline.graph.images import Images
from pipeline.graph.products import accumulation
from pipeline.graph.search import TopK, insert

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

TILE_QUERIES = 8_192
TILE_MEMBERS = 8_192
# Share of the card's free memory that a query matrix may take; of a larger one, each tile is sent when it is needed.
_HELD_SHARE = 0.25
# Relative, above what any formula below rounds in float32.
_ROOM = 2.0**-18


class DeviceSearch:
    """A `lists.BlockSearch` on one device; keeps the query matrix there from one block to the next."""

    def __init__(self, device: str | torch.device, dtype: torch.dtype = torch.float16) -> None:
        """Choose where and how.

        Args:
            device: "cuda", "cuda:1", ...; "cpu" works and is slow.
            dtype: of the products: float16 (rows of norm up to 100; tightest of the fast ones), bfloat16 or float32.
                Sums must be kept in float32, as tensor cores do.
        """
        self.device, self.dtype = torch.device(device), dtype
        # One attribute, so that threads which share the search see both or neither.
        self._held: tuple[Float32 | None, torch.Tensor | None] = (None, None)

    def __call__(
        self,
        queries_QD: Float32,
        index_B: Int64,
        rows_MD: Float32,
        positions_M: Int64,
        centre_D: Float32,
        top: TopK,
        images: tuple[Images, Images] | None = None,
    ) -> None:
        """Let a block of queries meet the members; see `search.search_block`. Products are cheap here: no images."""
        host, held = self._held
        if host is not queries_QD:
            held = torch.from_numpy(queries_QD).to(self.device) if self._fits(queries_QD.nbytes) else None
            self._held = queries_QD, held
        centre = torch.from_numpy(np.ascontiguousarray(centre_D)).to(self.device)
        for start in range(0, len(rows_MD), TILE_MEMBERS):
            stop = min(start + TILE_MEMBERS, len(rows_MD))
            members = self._round(torch.from_numpy(rows_MD[start:stop]).to(self.device), centre)
            for low in range(0, len(index_B), TILE_QUERIES):
                index_T = index_B[low : low + TILE_QUERIES]
                if held is None:
                    rows_TD = torch.from_numpy(queries_QD[index_T]).to(self.device)
                else:
                    rows_TD = held[torch.from_numpy(index_T).to(self.device)]
                queries = self._round(rows_TD, centre)
                pairs = self._survivors(queries, members, top, index_T).cpu().numpy()
                _rank_pairs(
                    queries_QD,
                    index_T,
                    pairs,
                    rows_MD[start:stop],
                    positions_M[start:stop],
                    top.sq_distances,
                    top.positions,
                )

    def _fits(self, n_bytes: int) -> bool:
        if self.device.type != "cuda":
            return True
        return n_bytes < _HELD_SHARE * torch.cuda.mem_get_info(self.device)[0]

    def _round(self, rows_RD: torch.Tensor, centre_D: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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

    def _survivors(
        self,
        queries: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        members: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        top: TopK,
        index_T: Int64,
    ) -> torch.Tensor:
        """Return int64 [E, 2], (query, member) pairs that may be among the K nearest, ordered by query."""
        (a, norms_a, errors_a), (b, norms_b, errors_b) = queries, members
        product, output = self._multiply(a, b)
        stray = output * product.abs()
        slack = accumulation(a.shape[1]) * (norms_a + norms_b.max()) + 1e-30
        error = errors_a + errors_b.max()
        bounds = torch.from_numpy(top.sq_distances[index_T, -1]).to(self.device)
        n_best = top.sq_distances.shape[1]
        half = norms_b * 0.5
        if len(b) >= n_best:
            # The K-th largest lower bound of the products caps the K-th distance before any is computed.
            likely = (product - stray - half).topk(n_best, dim=1).values[:, -1]
            cap = ((norms_a - 2 * likely + 2 * slack).clamp(min=0).sqrt() + error) ** 2 * (1 + _ROOM)
            bounds = torch.minimum(bounds, cap)
        reach = (bounds.sqrt() + error) ** 2 * (1 + _ROOM)
        thresholds = (norms_a - reach) / 2 - slack * (1 + _ROOM)
        return (product + stray - half >= thresholds[:, None]).nonzero()


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rank_pairs(
    queries_QD: Float32,
    index_T: Int64,
    pairs_E2: Int64,
    members_MD: Float32,
    positions_M: Int64,
    best_distances: Float32,
    best_positions: Int64,
) -> None:
    last = best_distances.shape[1] - 1
    for e in range(pairs_E2.shape[0]):
        row, member = index_T[pairs_E2[e, 0]], pairs_E2[e, 1]
        distance, position = sq_distance(queries_QD[row], members_MD[member]), positions_M[member]
        worst = best_distances[row, last]
        if distance < worst or (distance == worst and position < best_positions[row, last]):
            insert(best_distances[row], best_positions[row], distance, position)
