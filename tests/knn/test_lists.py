"""Neighbours do not depend on how lists are grouped into partitions and queries into batches."""

import numpy as np
import pytest

from d2prune.knn.block_search import TopK
from d2prune.knn.lists import Lists, Visits, search_lists, visits_of
from d2prune.knn.merge import merge
from d2prune.knn.quantiser import Quantiser, train
from tests.knn.rows import pairs_of
from tests.oracles_knn import sorted_pairs

NLIST, NPROBE, K = 32, 6, 7


def pool(seed, n_rows=900, n_dims=12):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, n_dims)) * 2
    rows = (centres[rng.integers(0, 20, n_rows)] + rng.normal(size=(n_rows, n_dims))).astype(np.float32)
    rows[rng.integers(0, n_rows, 60)] = rows[0]
    return rows


def search_in_partitions(rows, n_partitions, seed):
    """Search as a cluster does: each row in its own partition, then with that bound in the others."""
    n_rows = len(rows)
    centroids = train(rows, NLIST, seed=0)
    probes = Quantiser(centroids).nearest(rows, NPROBE).positions
    rng = np.random.default_rng(seed)
    owner_L = rng.permutation(np.arange(NLIST) % n_partitions)
    partitions = []
    for partition in range(n_partitions):
        lists_of = np.flatnonzero(owner_L == partition)
        members = [np.flatnonzero(probes[:, 0] == number) for number in lists_of]
        members = [rng.permutation(m) for m in members]
        indptr = np.cumsum([0] + [len(m) for m in members])
        order = np.concatenate(members).astype(np.int64)
        partitions.append((lists_of, Lists(rows[order], order, indptr, centroids[lists_of])))
    results = []
    for lists_of, lists in partitions:
        home = lists.positions
        local = np.full(NLIST, -1, np.int32)
        local[lists_of] = np.arange(len(lists_of))
        top = TopK.empty(len(home), K)
        search_lists(lists, lists.rows, visits_of(local[probes[home, :1]], len(lists_of)), top)
        results.append((home, top))
        for other_lists_of, other in partitions:
            other_local = np.full(NLIST, -1, np.int32)
            other_local[other_lists_of] = np.arange(len(other_lists_of))
            visits = other_local[probes[home, 1:]]
            visitors = np.flatnonzero((visits >= 0).any(axis=1))
            visited = TopK.empty(len(visitors), K, top.sq_distances[visitors, -1])
            queries = rows[home[visitors]]
            search_lists(other, queries, visits_of(visits[visitors], len(other_lists_of)), visited)
            results.append((home[visitors], visited))
    found = TopK.empty(n_rows, K)
    for index in rng.permutation(len(results)):
        own, result = results[index]
        merged = merge([TopK(found.sq_distances[own], found.positions[own]), result])
        found.sq_distances[own], found.positions[own] = merged.sq_distances, merged.positions
    return found, probes


@pytest.mark.parametrize("seed", [0, 1])
def test_the_number_of_partitions_does_not_change_the_neighbours(seed):
    rows = pool(seed)
    one, probes = search_in_partitions(rows, 1, seed)
    for n_partitions in (4, 16):
        many, _ = search_in_partitions(rows, n_partitions, seed + 10)
        assert many.positions.tobytes() == one.positions.tobytes()
        assert many.sq_distances.tobytes() == one.sq_distances.tobytes()
    for query in range(0, len(rows), 97):
        visited = np.flatnonzero(np.isin(probes[:, 0], probes[query]))
        assert pairs_of(one)[query] == sorted_pairs(rows[query : query + 1], rows[visited], visited)[0][:K]


def test_visits_invert_probes():
    visits = visits_of(np.array([[2, 0], [-1, 2], [0, -1]], np.int32), 4, first_query=10)
    assert visits.indptr.tolist() == [0, 2, 2, 4, 4]
    assert visits.queries.tolist() == [10, 12, 10, 11]


def test_empty_lists_and_lists_without_visitors_are_skipped():
    rows = np.eye(3, dtype=np.float32)
    lists = Lists(rows, np.arange(3), np.array([0, 0, 2, 3]), np.zeros((3, 3), np.float32))
    top = TopK.empty(3, 2)
    search_lists(lists, rows, Visits(np.array([0, 3, 4, 4]), np.array([0, 1, 2, 1])), top)
    assert pairs_of(top) == [[], [(0, 1), (2, 0)], []]
