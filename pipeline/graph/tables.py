"""The graph artifact's tables: rows of the compressed sparse graph, one file per input shard."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts, columns, schemas
from pipeline.artifacts import Receipt
from pipeline.graph.csr import Graph


def part_name(part: int) -> str:
    """The file of input shard `part` in artifacts with one unit for the whole pool."""
    return f"{part:08d}.parquet"


def to_table(graph: Graph, cut_off_N: npt.NDArray[np.bool_], start: int, stop: int) -> pa.Table:
    """Rows `start` to `stop` of the graph as schemas.NEIGHBORS."""
    low, high = graph.indptr[start], graph.indptr[stop]
    indptr = graph.indptr[start : stop + 1] - low
    return pa.table(
        [
            pa.array(cut_off_N[start:stop]),
            columns.ragged_column(indptr, graph.indices[low:high]),
            columns.ragged_column(indptr, graph.sq_distances[low:high]),
        ],
        schema=schemas.NEIGHBORS,
    )


def read_graph(folder: str, receipt: Receipt, parts: Sequence[int]) -> tuple[Graph, npt.NDArray[np.bool_]]:
    """The rows of some parts (indices are canonical positions), and which of these the cut-off removed, bool [N]."""
    table = pa.concat_tables(artifacts.read_table(folder, receipt, part_name(part)) for part in parts)
    degrees = [chunk.value_lengths().to_numpy() for chunk in table["indices"].chunks]
    graph = Graph(
        np.cumsum(np.concatenate([[0], *degrees]), dtype=np.int64),
        columns.ragged(table["indices"]).astype(np.int64),
        columns.ragged(table["sq_distances"]).astype(np.float32),
    )
    return graph, table["cut_off"].to_numpy()
