"""Where a pool's artifacts lie, and what the ranking reads of them, for some parts at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.partition import node_id
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.parts.files import SAMPLES
from d2prune.parts.neighbors import read_graph
from d2prune.parts.spans import Spans
from d2prune.rank.methods import Baseline
from d2prune.rank.suppressors import NAMES
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Where the artifacts of a pool lie.

    Attributes:
        embed_folder: `work_dir/embed`.
        parts: embed's units, in canonical order.
        graph_folder: `work_dir/graph`.
        graph: the graph artifact's units, one per part.
        folder: `work_dir/rank`.
    """

    embed_folder: str
    parts: tuple[Receipt, ...]
    graph_folder: str
    graph: tuple[Receipt, ...]
    folder: str

    @property
    def graph_identity(self) -> str:
        """What the graph is made from: each unit's key holds it, as the whole pool decides every part's neighbours."""
        return self.graph[0].key


def read_rows(
    pool: Pool, parts: Sequence[int], starts: Int64s
) -> tuple[npt.NDArray[np.bool_], tuple[Int64s, Int64s, npt.NDArray[np.float32]]]:
    """Some parts' rows of the graph, neighbours by `node_id`.

    Part by part, so that what turns positions into ids is of one part's size.

    Args:
        pool: where they lie.
        parts: their numbers, a run.
        starts: int64 [P+1], first canonical position of each of P partitions, and the end.

    Returns:
        bool [N], which the cut-off removed, and (indptr int64 [N+1], neighbors int64 [E],
        sq_distances float32 [E]).
    """
    cut_off, degrees, neighbors, distances = [], [np.zeros(1, np.int64)], [], []
    for part in parts:
        graph, cut_off_M = read_graph(pool.graph_folder, [pool.graph[part]])
        owner_E, index_E = Spans(starts).locate(graph.indices)
        cut_off.append(cut_off_M)
        degrees.append(np.diff(graph.indptr))
        neighbors.append(node_id(owner_E, index_E))
        distances.append(graph.sq_distances)
    rows = np.cumsum(np.concatenate(degrees)), np.concatenate(neighbors), np.concatenate(distances)
    return np.concatenate(cut_off), rows


def read_uids(pool: Pool, parts: Sequence[int]) -> pa.LargeStringArray:
    """The uids of some parts' samples, in canonical order."""
    columns = [
        artifacts.read_table(pool.embed_folder, pool.parts[part], SAMPLES, ["uid"])["uid"].cast(NAMES)
        for part in parts
    ]
    return pa.concat_arrays([pa.array([], NAMES), *(chunk for column in columns for chunk in column.chunks)])


def read_features(pool: Pool, baseline: Baseline) -> npt.NDArray[np.float32]:
    """The rows of the whole pool that distances are taken between, as the graph takes them; float32 [N, D]."""
    parts, first_row = [], 0
    for receipt in pool.parts:
        raw_ND = read_embeddings(pool.embed_folder, receipt, baseline.embeddings, baseline.features)
        parts.append(unit_features(baseline.features, raw_ND, first_row))
        first_row += len(raw_ND)
    return np.concatenate(parts)
