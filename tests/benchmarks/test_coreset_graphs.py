"""Graphs of subsets equal those of a search of each subset."""

import numpy as np
import pytest

from benchmarks.coreset.subgraphs import Subgraphs
from d2prune.knn.in_memory import knn_graph


@pytest.mark.parametrize("copies", [0, 40])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97, 0.999])
def test_graph_of_a_subset_is_that_of_a_search(share, copies):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 8)).astype(np.float32)
    rows[:copies] = rows[0]
    left = np.sort(rng.permutation(300)[: max(2, round(300 * (1 - share)))])
    got, expected = Subgraphs(rows, 5).graph(left), knn_graph(rows[left], 5)
    assert np.array_equal(got.indptr, expected.indptr)
    assert np.array_equal(got.indices, expected.indices)
    assert np.array_equal(got.sq_distances, expected.sq_distances)
