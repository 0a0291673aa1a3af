"""Neighbours do not depend on how lists are grouped into partitions and queries into batches."""

import numpy as np
import pytest

from d2prune.knn.backend import search_probes
from d2prune.knn.block_search import Offers
from d2prune.knn.lists import Lists, Visits, search_lists, visits_of
from d2prune.knn.merge import merge_into
from d2prune.knn.quantiser import Quantiser, train
from d2prune.knn.top_k import TopK
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
    """Search as a cluster does: rows at home in a partition with each other, then with those that visit."""
    n_rows = len(rows)
    centroids = train(rows, NLIST, seed=0)
    probes = Quantiser(centroids).nearest(rows, NPROBE).positions
    rng = np.random.default_rng(seed)
    owner_L = rng.permutation(np.arange(NLIST) % n_partitions)
    found = TopK.empty(n_rows, K)

    def add(own, result):
        merged = found[own]
        merge_into(merged, result)
        found.sq_distances[own], found.positions[own] = merged.sq_distances, merged.positions

    for partition in rng.permutation(n_partitions):
        lists_of = np.flatnonzero(owner_L == partition)
        members = [rng.permutation(np.flatnonzero(probes[:, 0] == number)) for number in lists_of]
        indptr = np.cumsum([0] + [len(m) for m in members])
        home = np.concatenate(members).astype(np.int64)
        lists = Lists(rows[home], home, indptr, centroids[lists_of])
        local = np.full(NLIST, -1, np.int32)
        local[lists_of] = np.arange(len(lists_of))
        visits = local[probes]
        top = TopK.empty(len(home), K)
        threads = int(rng.integers(1, 4))
        search_probes(lists, lists.rows, visits[home, :1], top, threads)
        search_probes(lists, lists.rows, visits[home, 1:], top, threads, None, Offers(home, top))
        others = np.setdiff1d(np.flatnonzero((visits >= 0).any(axis=1)), home)
        for batch in np.array_split(others, 3):
            visited = TopK.empty(len(batch), K)
            search_probes(lists, rows[batch], visits[batch], visited, threads, None, Offers(batch, top))
            add(batch, visited)
        add(home, top)
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
        visits = np.isin(probes[:, 0], probes[query])
        met = np.flatnonzero(visits | (probes == probes[query, 0]).any(axis=1))
        assert pairs_of(one)[query] == sorted_pairs(rows[query : query + 1], rows[met], met)[0][:K]


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
