"""The graph stage: embeddings of the whole pool -> undirected kNN graph, one part per input shard.

Reads the embed artifact's embeddings, writes `00000.parquet`, ... (schemas.NEIGHBORS), row-aligned with its parts.
Invariant: the graph depends on the embeddings and the params only, never on workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts, columns
from pipeline.artifacts import Receipt
from pipeline.errors import UserError
from pipeline.graph.csr import Graph
from pipeline.graph.features import FeatureKind, features
from pipeline.graph.knn import knn_graph_report
from pipeline.graph.tables import part_name, to_table
from pipeline.scores.column import read_score
from pipeline.selection.budget import drop_mask


@dataclass(frozen=True)
class GraphParams:
    """What decides the graph; see `config.GraphConfig` and `config.SelectConfig` for units and meaning."""

    features: FeatureKind
    n_neighbors: int
    target_recall: float | None
    nlist: int | None
    nprobe: int | None
    seed: int
    drop_score: str | None
    drop_fraction: float


@dataclass(frozen=True)
class GraphUnit:
    """The whole pool."""

    key: str
    parts: tuple[Receipt, ...]


def plan(embed_fingerprint: str, parts: Sequence[Receipt], params: GraphParams) -> list[GraphUnit]:
    """One unit: the pool's embeddings lie in `parts`, in canonical order."""
    return [GraphUnit(artifacts.unit_key("graph", params, embed_fingerprint), tuple(parts))]


@dataclass(frozen=True)
class GraphWorker:
    """Builds the graph of a pool that fits one machine's memory."""

    embed_folder: str
    folder: str
    params: GraphParams

    def __call__(self, unit: GraphUnit) -> Receipt:
        """Build and commit the graph.

        Raises:
            UserError: an embedding is not finite or is zero, or the recall asked for is out of reach.
        """
        params = self.params
        features_ND = _features(self.embed_folder, unit.parts, params.features)
        cut_off_N = self._cut_off(unit.parts, len(features_ND))
        kept_K = np.flatnonzero(~cut_off_N)
        result = knn_graph_report(
            features_ND[kept_K],
            n_neighbors=params.n_neighbors,
            target_recall=params.target_recall,
            seed=params.seed,
            nlist=params.nlist,
            nprobe=params.nprobe,
        )
        graph = _spread(result.graph, kept_K, len(features_ND))
        files: dict[str, pa.Table | bytes] = {}
        start = 0
        for part, receipt in enumerate(unit.parts):
            stop = start + receipt.rows("samples.parquet")
            files[part_name(part)] = to_table(graph, cut_off_N, start, stop)
            start = stop
        facts: dict[str, float] = {
            "n_neighbors": params.n_neighbors,
            "nlist": result.nlist,
            "nprobe": result.nprobe,
        }
        if (recall := result.recall) is not None:
            facts |= {
                "recall": recall.value,
                "recall_low": recall.low,
                "recall_high": recall.high,
                "recall_queries": recall.n_queries,
            }
            if params.target_recall is not None and recall.high < params.target_recall:
                raise UserError(
                    f"graph.target_recall {params.target_recall}: measured {recall.value:.4f} (95 %: {recall.low:.4f} "
                    f"to {recall.high:.4f}) with nprobe {result.nprobe} of {result.nlist}; give a larger graph.nprobe"
                )
        counters = {"nodes": graph.n_nodes, "edges": graph.n_edges // 2, "cut_off": int(cut_off_N.sum())}
        return artifacts.commit_unit(self.folder, unit.key, files, counters, facts)

    def _cut_off(self, parts: Sequence[Receipt], n_rows: int) -> npt.NDArray[np.bool_]:
        """Which samples are left out of the graph, bool [N]."""
        if self.params.drop_score is None:
            return np.zeros(n_rows, bool)
        score_N = read_score(self.embed_folder, parts, self.params.drop_score, "select.drop_score")
        return drop_mask(score_N, self.params.drop_fraction)


def _features(folder: str, parts: Sequence[Receipt], kind: FeatureKind) -> npt.NDArray[np.float32]:
    """Features of the whole pool, float32 [N, D]."""
    names = [name for name in ("image", "text") if name in kind.split("+")]
    blocks = []
    first_row = 0
    for receipt in parts:
        table = artifacts.read_table(folder, receipt, "samples.parquet", [f"{name}_emb" for name in names])
        sides = {name: columns.vectors(table[f"{name}_emb"]) for name in names}
        blocks.append(features(kind, sides.get("image"), sides.get("text"), first_row))
        first_row += table.num_rows
    return np.concatenate(blocks)


def _spread(graph: Graph, kept_K: npt.NDArray[np.int64], n_rows: int) -> Graph:
    """The graph of the kept samples as a graph of all `n_rows`, where the others have no edge."""
    if len(kept_K) == n_rows:
        return graph
    degree_N = np.zeros(n_rows, np.int64)
    degree_N[kept_K] = np.diff(graph.indptr)
    return Graph(np.concatenate([[0], np.cumsum(degree_N)]), kept_K[graph.indices], graph.sq_distances)
