"""Local graphs equal a naive translation of the same rows: ghosts, rows of ghosts, and exports."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.d2 import partition_layout
from d2prune.d2.partition import node_id
from d2prune.errors import UserError
from tests.graphs import problems
from tests.oracles import neighbours


def naive(partition, near):
    """(adjacent, ghosts, all rows, exports) from one {(owner, index): distance} per own node."""
    ghosts = sorted({node for row in near for node in row if node[0] != partition})
    adjacent = sorted({owner for owner, _ in ghosts})
    number = {node: len(near) + k for k, node in enumerate(ghosts)}
    rows = [{number.get(node, node[1]): d for node, d in row.items()} for row in near]
    rows += [{i: row[ghost] for i, row in enumerate(near) if ghost in row} for ghost in ghosts]
    exports = [
        [i for i, row in enumerate(near) if any(node[0] == other for node in row)] for other in adjacent
    ]
    return adjacent, ghosts, rows, exports


@given(problems(), st.data())
@settings(max_examples=60, deadline=None)
def test_local_graph_equals_the_naive_translation(problem, data):
    graph, _ = problem
    owner = data.draw(st.lists(st.integers(0, 3), min_size=graph.n_nodes, max_size=graph.n_nodes))
    index = [owner[:i].count(owner[i]) for i in range(graph.n_nodes)]
    # Neighbours in order of position, not of id, as `rounds.split` returns them.
    near = [{(owner[j], index[j]): d for j, d in row.items()} for row in neighbours(graph)]
    for partition in range(4):
        own = [row for i, row in enumerate(near) if owner[i] == partition]
        ids = np.array([node_id(*node) for row in own for node in row], np.int64)
        distances = np.array([d for row in own for d in row.values()], np.float32)
        indptr = np.cumsum([0, *map(len, own)])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(partition_layout, "_EDGES_PER_BATCH", data.draw(st.integers(1, 5)))
            got = partition_layout.build_local_graph(partition, indptr, ids, distances)
        adjacent, ghosts, rows, exports = naive(partition, own)
        assert got.adjacent.tolist() == adjacent
        assert got.n_ghosts == len(ghosts)
        assert [ghosts[k][0] for k in got.ghost_bounds[:-1]] == adjacent
        assert len(got.indptr) == len(rows) + 1
        for row, (lo, hi) in zip(rows, itertools.pairwise(got.indptr), strict=True):
            assert list(row) == got.indices[lo:hi].tolist()
            np.testing.assert_array_equal(np.array(list(row.values()), np.float32), got.sq_distances[lo:hi])
        assert [
            got.export_nodes[lo:hi].tolist() for lo, hi in itertools.pairwise(got.export_bounds)
        ] == exports


@given(st.lists(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)))
def test_sort_distinct_equals_numpy_unique(values):
    array = np.array(values, np.int64)
    np.testing.assert_array_equal(partition_layout.sort_distinct(array.copy()), np.unique(array))


def test_more_nodes_and_ghosts_than_int32_holds_are_rejected(monkeypatch):
    # 2**31 ghosts need too much memory for a test, so this fakes their number.
    class Many(np.ndarray):
        def __len__(self):
            return 2**31

    monkeypatch.setattr(partition_layout, "sort_distinct", lambda ids: ids.view(Many))
    with pytest.raises(
        UserError, match=r"partition 7: 1 nodes and 2147483648 ghosts, expected fewer than 2\*\*31"
    ):
        partition_layout.build_local_graph(
            7, np.array([0, 1]), np.array([node_id(1, np.int64(0))]), np.zeros(1, np.float32)
        )
