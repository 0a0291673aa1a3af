"""Graph rows of a member's parts, and the parts of each member.

Suffixes: N samples, E directed edges.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from d2prune.d2.near_duplicates import select_edges
from d2prune.d2.partition import node_id
from d2prune.parts.files import NEIGHBORS
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans

Int64s = npt.NDArray[np.int64]
GraphRows = tuple[Int64s, Int64s, npt.NDArray[np.float32]]


def read_graph_rows(
    parts: Parts, numbers: Sequence[int], owners: Spans, max_sq_distance: np.float32 | None = None
) -> tuple[npt.NDArray[np.bool_], GraphRows]:
    """Read the graph rows of some parts, with neighbours as node ids (`node_id`).

    Positions are translated part by part, so that temporary arrays have the size of one part.

    Args:
        parts: the pool.
        numbers: consecutive part numbers.
        owners: canonical positions of each partition.
        max_sq_distance: leaves out longer edges; None: none.

    Returns:
        bool [N], the samples that the cut-off removed, and (indptr int64 [N+1], neighbours int64
        [E], sq_distances float32 [E]).
    """
    cut_off, degrees, neighbors, distances = [], [np.zeros(1, np.int64)], [], []
    for part in numbers:
        graph, cut_off_M = read_graph(parts.folder(NEIGHBORS), [parts.receipt(part, NEIGHBORS)])
        rows = graph.indptr, graph.indices, graph.sq_distances
        if max_sq_distance is not None:
            rows = select_edges(*rows, graph.sq_distances <= max_sq_distance)
        owner_E, index_E = owners.locate(rows[1])
        cut_off.append(cut_off_M)
        degrees.append(np.diff(rows[0]))
        neighbors.append(node_id(owner_E, index_E))
        distances.append(rows[2])
    joined = np.cumsum(np.concatenate(degrees)), np.concatenate(neighbors), np.concatenate(distances)
    return np.concatenate(cut_off), joined


def share_parts(rows: Sequence[int], n_partitions: int) -> list[int]:
    """Divide parts into at most `n_partitions` consecutive ranges of about equal rows.

    Args:
        rows: number of rows of each of P parts, P >= 1.
        n_partitions: at least 1.

    Returns:
        Ascending bounds from 0 to P: partition p owns parts bounds[p] to bounds[p + 1] - 1, at
        least one.
    """
    ends = np.cumsum(rows)
    targets = ends[-1] * np.arange(1, n_partitions) / n_partitions
    cuts = np.searchsorted(ends, targets, side="left") + 1
    return sorted({0, *cuts.tolist(), len(rows)})
