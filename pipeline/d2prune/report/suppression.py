"""How similar a dropped sample is to the neighbour that suppressed it most, and which are near-copies.

Both come from the edges of the stored graph, so they cover every sample without reading embeddings.
Rows are unit vectors: cosine = 1 - squared distance / 2. N rows of a part, E edges.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.report.metrics import NEAR_DUPLICATE
from d2prune.report.outcome import BELOW_BUDGET
from d2prune.store import columns

REPRESENTED = 0.9
"""Cosine from which a suppressor counts as a stand-in for the sample it suppressed."""
LARGE_SHARE = 0.25
"""Share of the suppressed samples without one from which the report warns."""
_COSINE_BINS = 40


@dataclass(frozen=True)
class NearEdges:
    """Pairs of near-copies, each in both directions.

    Attributes:
        from_E: int64, canonical positions.
        to_E: int64, likewise.
        sq_distances_E: float32.
    """

    from_E: NDArray[np.int64]
    to_E: NDArray[np.int64]
    sq_distances_E: NDArray[np.float32]


@dataclass(frozen=True)
class SuppressedSummary:
    """The samples that only suppression dropped, by cosine to the neighbour that suppressed them most.

    Attributes:
        samples: how many there are.
        unlike: how many have a cosine below `REPRESENTED`.
        edges: float64 [B + 1] of the histogram, cosines.
        counts: int64 [B].
    """

    samples: int
    unlike: int
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of the samples with a cosine below `REPRESENTED`; 0 if there are none."""
        return self.unlike / self.samples if self.samples else 0.0

    @property
    def is_large(self) -> bool:
        """Whether that share is large enough to warn."""
        return self.share >= LARGE_SHARE


def only_suppressed(
    reasons: pa.ChunkedArray, forward_N: NDArray[np.float64], threshold_N: NDArray[np.float64] | float
) -> NDArray[np.bool_]:
    """Which samples would have been kept if no neighbour had lowered their score, bool [N].

    Args:
        reasons: of the decisions.
        forward_N: float64, the forward scores.
        threshold_N: lowest selection score kept, of all samples or of each one's group.
    """
    below = np.asarray(pc.equal(reasons, BELOW_BUDGET), bool)
    return below & (forward_N >= threshold_N)


def suppressor_cosines(neighbors: pa.Table, suppressor_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cosine to the strongest suppressor, float64 [N]; nan where there is none.

    Args:
        neighbors: `indices` and `sq_distances` of a part of the graph.
        suppressor_N: canonical position of each row's strongest suppressor; -1: none.
    """
    row_E, to_E, sq_E = _edges(neighbors)
    hit_E = to_E == suppressor_N[row_E]
    cosine_N = np.full(neighbors.num_rows, np.nan)
    cosine_N[row_E[hit_E]] = 1 - sq_E[hit_E] / 2
    return cosine_N


def near_edges(neighbors: pa.Table, start: int, cosine: float = NEAR_DUPLICATE) -> NearEdges:
    """The edges of a part of the graph between near-copies.

    Args:
        neighbors: `indices` and `sq_distances` of the part.
        start: canonical position of its first row.
        cosine: lowest cosine of near-copies.
    """
    row_E, to_E, sq_E = _edges(neighbors)
    near_E = sq_E <= np.float32(2 - 2 * cosine)
    return NearEdges(start + row_E[near_E], to_E[near_E], sq_E[near_E])


def summarise(cosine_M: NDArray[np.float64]) -> SuppressedSummary:
    """Count the cosines of the samples that only suppression dropped; those without one are left out."""
    known = cosine_M[np.isfinite(cosine_M)]
    low = min(float(known.min(initial=1.0)), REPRESENTED)
    # Bins meet at the limit, so that no bar holds samples of both sides.
    width = (1 - REPRESENTED) / max(round(_COSINE_BINS * (1 - REPRESENTED) / (1 - low)), 1)
    below = int(np.ceil((REPRESENTED - low) / width - 1e-9))
    edges = np.asarray(
        REPRESENTED + width * np.arange(-below, round((1 - REPRESENTED) / width) + 1), np.float64
    )
    index = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(index, minlength=len(edges) - 1)
    return SuppressedSummary(len(known), int((known < REPRESENTED).sum()), edges, counts.astype(np.int64))


def _edges(neighbors: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Row of the part, neighbour and squared distance of every edge."""
    degrees = [chunk.value_lengths().to_numpy() for chunk in neighbors["indices"].chunks]
    row_E = np.repeat(np.arange(neighbors.num_rows), np.concatenate([np.zeros(0, np.int64), *degrees]))
    return (
        row_E,
        columns.ragged(neighbors["indices"]).astype(np.int64, copy=False),
        columns.ragged(neighbors["sq_distances"]).astype(np.float32, copy=False),
    )
