"""Tables of the graph artifact: compressed sparse rows, one unit per input shard."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.knn.csr import Graph
from d2prune.parts.files import NEIGHBORS
from d2prune.store import artifacts, columns, schemas
from d2prune.store.artifacts import Receipt


def to_table(graph: Graph, cut_off_N: npt.NDArray[np.bool_]) -> pa.Table:
    """Rows of the graph, indices canonical, as a table with schema `schemas.NEIGHBORS`."""
    return pa.table(
        [
            pa.array(cut_off_N),
            columns.ragged_column(graph.indptr, graph.indices),
            columns.ragged_column(graph.indptr, graph.sq_distances),
        ],
        schema=schemas.NEIGHBORS,
    )


def read_graph(folder: str, parts: Sequence[Receipt]) -> tuple[Graph, npt.NDArray[np.bool_]]:
    """Read the rows of some parts.

    Returns:
        The rows, indices canonical, and bool [N]: which samples the cut-off removed.
    """
    table = pa.concat_tables(artifacts.read_table(folder, receipt, NEIGHBORS) for receipt in parts)
    degrees = [chunk.value_lengths().to_numpy() for chunk in table["indices"].chunks]
    graph = Graph(
        np.cumsum(np.concatenate([[0], *degrees]), dtype=np.int64),
        columns.ragged(table["indices"]).astype(np.int64, copy=False),
        columns.ragged(table["sq_distances"]).astype(np.float32, copy=False),
    )
    return graph, table["cut_off"].to_numpy()
