"""Exact kNN graphs of subsets of the same rows, from one search of all rows.

Cut-offs leave a different subset for every seed and rate. A search of all 50,000 images takes a
minute of CPU time, filtering its result a tenth of a second. Invariant: the same graph as
`knn_graph` of the subset.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.knn.csr import Graph
from d2prune.knn.features import unit_rows
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.merge import without_self
from d2prune.knn.recall import brute_force
from d2prune.knn.symmetrise import symmetrise
from d2prune.knn.top_k import NO_POSITION

# Neighbours searched for each one needed. With 40 % of the rows dropped, 3 % of the rows have fewer
# than 5 of 15 left, and are searched again.
_SPARE = 3


class Subgraphs:
    """The rows of a pool with more neighbours than a graph needs.

    Args:
        rows: float32 [N, D].
        n_neighbors: k of the graphs.
    """

    def __init__(self, rows: NDArray[np.float32], n_neighbors: int) -> None:
        self._rows, self._k = unit_rows(rows), n_neighbors
        report = knn_graph_report(rows, min(_SPARE * n_neighbors, max(len(rows) - 1, 1)))
        self._neighbours, self._sq_distances = report.neighbours, report.sq_distances

    def graph(self, left: NDArray[np.int64]) -> Graph:
        """Return the kNN graph of the rows `left` (ascending), numbered from 0 in their order."""
        k = min(self._k, max(len(left) - 1, 1))
        place = np.full(len(self._rows), -1)
        place[left] = np.arange(len(left))
        near = self._neighbours[left]
        found = near != NO_POSITION
        places = np.where(found, place[np.where(found, near, 0)], -1)
        # Stable, so that those left stay in order of distance.
        slots = np.argsort(places < 0, axis=1, kind="stable")[:, :k]
        places = np.take_along_axis(places, slots, 1)
        lengths = np.take_along_axis(self._sq_distances[left], slots, 1)
        short = np.flatnonzero((places < 0).any(1))
        if len(short):
            rows = np.ascontiguousarray(self._rows[left])
            top = brute_force(rows[short], [(rows, np.arange(len(left)))], k + 1)
            again = without_self(top, short)
            places[short], lengths[short] = again.positions, again.sq_distances
        return symmetrise(places, lengths)
