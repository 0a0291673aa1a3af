"""Block search equals sorting every pair, ties included, for any tiles, order, centre, precision and bound."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn import block_search
from d2prune.knn.block_search import NO_POSITION, Members, TopK, search_block
from d2prune.knn.distances import pair_sq_distances
from tests.knn.rows import PRECISIONS, pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["lattice", "jitter", "plain"]),
    n_dims=st.sampled_from([1, 2, 7, 16, 40]),
    n_members=st.integers(1, 60),
    n_neighbors=st.integers(1, 9),
    precision=st.sampled_from(PRECISIONS),
    tiles=st.sampled_from([(3, 5), (512, 1024)]),
    offset=st.sampled_from([0.0, 100.0]),
    centred=st.booleans(),
)
def test_equals_sorting_every_pair(
    seed, kind, n_dims, n_members, n_neighbors, precision, tiles, offset, centred
):
    rng = np.random.default_rng(seed)
    members = rows_with_ties(rng, n_members, n_dims, kind) + np.float32(offset)
    queries = np.concatenate([rows_with_ties(rng, 4, n_dims, kind) + np.float32(offset), members[:6]])
    positions = rng.permutation(1000)[:n_members]
    centre = None if centred else rng.normal(size=n_dims).astype(np.float32)
    top = TopK.empty(len(queries), n_neighbors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_search, "TILE_QUERIES", tiles[0])
        patch.setattr(block_search, "TILE_MEMBERS", tiles[1])
        split = int(rng.integers(0, n_members + 1))
        for part in (slice(split, None), slice(0, split)):
            if len(positions[part]):
                block = Members.prepare(members[part].copy(), positions[part], centre, precision)
                search_block(queries, rng.permutation(len(queries)), block, top)
    assert pairs_of(top) == [p[:n_neighbors] for p in sorted_pairs(queries, members, positions)]


def test_a_bound_is_inclusive_and_hides_only_what_lies_beyond():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (80, 6)).astype(np.float32)
    everything = sorted_pairs(rows, rows, range(80))
    bounds = np.array([pairs[4][0] for pairs in everything], np.float32)
    top = TopK.empty(80, 5, bounds)
    search_block(rows, np.arange(80), Members.prepare(rows, np.arange(80)), top)
    assert pairs_of(top) == [p[:5] for p in everything]
    below = TopK.empty(80, 5, np.full(80, 2.0, np.float32))
    search_block(rows, np.arange(80), Members.prepare(rows, np.arange(80)), below)
    assert pairs_of(below) == [[pair for pair in p if pair[0] <= 2][:5] for p in everything]


def test_only_the_queries_of_the_block_change():
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    top = TopK.empty(20, 3)
    search_block(rows, np.array([2, 7]), Members.prepare(rows, np.arange(20)), top)
    assert np.flatnonzero((top.positions != NO_POSITION).any(axis=1)).tolist() == [2, 7]


def test_few_products_survive_the_bound():
    # Were the bound useless, all 4 million pairs would be re-ranked: 0.6 s and more; the products
    # take 0.05 s.
    rows = np.random.default_rng(0).normal(size=(2000, 1024)).astype(np.float32)
    members = Members.prepare(rows, np.arange(2000))
    search_block(rows, np.arange(10), members, TopK.empty(2000, 6))
    start = time.process_time()
    pair_sq_distances(rows, np.repeat(np.arange(200), 2000), rows, np.tile(np.arange(2000), 200))
    all_pairs = 10 * (time.process_time() - start)
    start = time.process_time()
    search_block(rows, np.arange(2000), members, TopK.empty(2000, 6))
    assert time.process_time() - start < all_pairs / 2
