"""A Graph that breaks an invariant is refused, with an error that names the edge."""

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.knn.csr import Graph


def make(rows, distances=None, n=None):
    n = len(rows) if n is None else n
    indptr = np.cumsum([0] + [len(r) for r in rows]).astype(np.int64)
    indices = np.array([j for r in rows for j in r], np.int64)
    d = np.ones(len(indices), np.float32) if distances is None else np.array(distances, np.float32)
    return Graph(indptr, indices, d)


def test_a_symmetric_graph_passes():
    graph = make([[1, 2], [0], [0], []], [0.5, 0.25, 0.5, 0.25])
    graph.validate()
    assert (graph.n_nodes, graph.n_edges) == (4, 4)
    make([]).validate()


@pytest.mark.parametrize(
    ("rows", "distances", "words"),
    [
        ([[1], []], None, "not symmetric"),
        ([[], [0]], None, "not symmetric"),
        ([[1, 2], [0, 2], [0]], None, "not symmetric"),
        ([[0]], None, "as its own neighbour"),
        ([[2, 1], [0], [0]], None, "not strictly ascending"),
        ([[1, 1], [0, 0]], None, "not strictly ascending"),
        ([[1], [0]], [0.5, 0.25], "different squared distances"),
        ([[1], [0]], [np.nan, np.nan], "negative or non-finite"),
        ([[1], [0]], [np.inf, np.inf], "negative or non-finite"),
        ([[1], [0]], [-1, -1], "negative or non-finite"),
        ([[5], [0]], None, "expected 0 <= neighbour < 2"),
        ([[-1], [0]], None, "expected 0 <= neighbour < 2"),
    ],
)
def test_each_fault_is_reported(rows, distances, words):
    with pytest.raises(UserError, match=words):
        make(rows, distances).validate()


def test_arrays_of_the_wrong_type_or_length_are_refused():
    good = make([[1], [0]])
    with pytest.raises(UserError, match="int64"):
        Graph(good.indptr, good.indices.astype(np.int32), good.sq_distances).validate()
    with pytest.raises(UserError, match="indptr"):
        Graph(good.indptr[:-1], good.indices, good.sq_distances).validate()
    with pytest.raises(UserError, match="sq_distances"):
        Graph(good.indptr, good.indices, good.sq_distances[:1]).validate()
