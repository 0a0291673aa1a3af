"""What a worker of the ranking reads, for a range of parts.

Suffixes: N samples, E directed edges, D feature dimensions.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.partition import node_id
from d2prune.knn.features import FeatureKind
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.parts.files import EMBEDDINGS, NEIGHBORS, SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.rank.suppressors import UID_TYPE

Int64s = npt.NDArray[np.int64]
GraphRows = tuple[Int64s, Int64s, npt.NDArray[np.float32]]


def read_graph_rows(
    parts: Parts, numbers: Sequence[int], owners: Spans
) -> tuple[npt.NDArray[np.bool_], GraphRows]:
    """Read the graph rows of some parts, with neighbours as node ids (`node_id`).

    Positions are translated part by part, so that temporary arrays have the size of one part.

    Args:
        parts: the pool.
        numbers: consecutive part numbers.
        owners: canonical positions of each partition.

    Returns:
        bool [N], the samples that the cut-off removed, and (indptr int64 [N+1], neighbours int64
        [E], sq_distances float32 [E]).
    """
    cut_off, degrees, neighbors, distances = [], [np.zeros(1, np.int64)], [], []
    for part in numbers:
        graph, cut_off_M = read_graph(parts.folder(NEIGHBORS), [parts.receipt(part, NEIGHBORS)])
        owner_E, index_E = owners.locate(graph.indices)
        cut_off.append(cut_off_M)
        degrees.append(np.diff(graph.indptr))
        neighbors.append(node_id(owner_E, index_E))
        distances.append(graph.sq_distances)
    rows = np.cumsum(np.concatenate(degrees)), np.concatenate(neighbors), np.concatenate(distances)
    return np.concatenate(cut_off), rows


def read_uids(parts: Parts, numbers: Sequence[int]) -> pa.LargeStringArray:
    """Read the uids of some parts' samples, in canonical order."""
    columns = [parts.read(part, SAMPLES, ["uid"])["uid"].cast(UID_TYPE) for part in numbers]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.concat_arrays([pa.array([], UID_TYPE), *chunks])


def read_features(parts: Parts, kind: FeatureKind, file: str = EMBEDDINGS) -> npt.NDArray[np.float32]:
    """Read the feature rows of the pool, as the graph stage does; float32 [N, D]."""
    rows = []
    for part in range(parts.spans.n_parts):
        raw_ND = read_embeddings(parts.folder(file), parts.receipt(part, file), file, kind)
        rows.append(unit_features(kind, raw_ND, parts.spans.bounds(part)[0]))
    return np.concatenate(rows)
