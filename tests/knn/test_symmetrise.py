"""Directed neighbours become the undirected graph, built whole or in ranges of rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2prune.knn.symmetrise import rows_from_edges, symmetrise
from d2prune.knn.top_k import NO_POSITION
from tests.oracles_knn import edges_of


def directed(seed, n_nodes=60, n_neighbors=4):
    rng = np.random.default_rng(seed)
    weights = rng.random((n_nodes, n_nodes)).astype(np.float32)
    weights = np.minimum(weights, weights.T)
    neighbours = np.stack(
        [rng.permutation(np.delete(np.arange(n_nodes), i))[:n_neighbors] for i in range(n_nodes)]
    )
    distances = np.take_along_axis(weights, neighbours, axis=1)
    missing = rng.random(neighbours.shape) < 0.2
    neighbours[missing], distances[missing] = NO_POSITION, np.inf
    return neighbours, distances


@pytest.mark.parametrize("seed", range(5))
def test_an_edge_exists_if_either_row_lists_the_other(seed):
    neighbours, distances = directed(seed)
    graph = symmetrise(neighbours, distances)
    graph.validate()
    expected = {}
    for i, k in np.argwhere(neighbours != NO_POSITION):
        expected[i, neighbours[i, k]] = expected[neighbours[i, k], i] = distances[i, k]
    assert edges_of(graph) == expected


@pytest.mark.parametrize("cuts", [[0, 60], [0, 13, 60], [0, 0, 7, 20, 33, 60]])
def test_ranges_of_rows_equal_the_rows_of_the_whole_graph(cuts):
    neighbours, distances = directed(1)
    whole = symmetrise(neighbours, distances)
    i, k = np.nonzero(neighbours != NO_POSITION)
    j, d = neighbours[i, k], distances[i, k]
    order = np.random.default_rng(2).permutation(2 * len(i))
    sources, targets, both = (
        np.concatenate([i, j])[order],
        np.concatenate([j, i])[order],
        np.tile(d, 2)[order],
    )
    for start, stop in pairwise(cuts):
        mine = (sources >= start) & (sources < stop)
        part = rows_from_edges(sources[mine], targets[mine], both[mine], start, stop)
        low, high = whole.indptr[start], whole.indptr[stop]
        assert (part.indptr == whole.indptr[start : stop + 1] - low).all()
        assert (part.indices == whole.indices[low:high]).all()
        assert (part.sq_distances == whole.sq_distances[low:high]).all()


def test_no_neighbours_at_all():
    graph = symmetrise(np.full((3, 2), NO_POSITION), np.full((3, 2), np.inf, np.float32))
    graph.validate()
    assert graph.n_nodes == 3 and graph.n_edges == 0


@given(
    st.lists(st.integers(0, 2**40), max_size=400),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_rows_of_any_length_hold_each_target_once_in_order(targets, repetitions, random):
    """Also rows longer than those that are sorted by insertion."""
    edges = targets * (1 + repetitions)
    random.shuffle(edges)
    found = np.array(edges, np.int64)
    distances = (found % 97).astype(np.float32)
    row = rows_from_edges(np.full(len(found), 5), found, distances, 5, 6)
    assert row.indices.tolist() == sorted(set(edges))
    assert row.sq_distances.tolist() == [target % 97 for target in sorted(set(edges))]
