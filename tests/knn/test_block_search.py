"""Block search equals sorting all pairs, with ties, for any tiles, order, centre, precision and bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn import block_search
from d2prune.knn.block_search import Members, Offers, Visited, search_block
from d2prune.knn.products import accumulation, multiply, output_error
from d2prune.knn.top_k import NO_POSITION, TopK
from tests.knn.rows import PRECISIONS, pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs


@settings(deadline=None, max_examples=80)
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
def test_equals_sorting_all_pairs(
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


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["lattice", "jitter", "plain"]),
    n_rows=st.integers(2, 50),
    n_neighbors=st.integers(1, 7),
    precision=st.sampled_from(PRECISIONS),
    tiles=st.sampled_from([(3, 5), (512, 1024)]),
    n_probes=st.sampled_from([0, 1, 3]),
    bound=st.sampled_from([0.0, 1.0, np.inf, np.nan]),
)
def test_members_take_the_queries_they_meet(
    seed, kind, n_rows, n_neighbors, precision, tiles, n_probes, bound
):
    """Both sides hold the smallest pairs; some rows take nothing, some are not offered."""
    rng = np.random.default_rng(seed)
    rows = rows_with_ties(rng, n_rows, 7, kind)
    split = int(rng.integers(1, n_rows))
    positions = rng.permutation(1000)[:n_rows]
    offered = np.where(rng.random(n_rows) < 0.8, positions, NO_POSITION)
    bounds = np.where(rng.random(n_rows) < 0.2, -np.inf, bound).astype(np.float32)
    bounds[np.isnan(bounds)] = rng.random(int(np.isnan(bounds).sum()))
    visited = np.stack([rng.permutation(5)[:n_probes] for _ in rows]).astype(np.int32)
    top = TopK.empty(n_rows, n_neighbors, bounds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_search, "TILE_QUERIES", tiles[0])
        patch.setattr(block_search, "TILE_MEMBERS", tiles[1])
        members = Members.prepare(rows[split:].copy(), offered[split:], precision=precision)
        search_block(
            rows,
            rng.permutation(split),
            members,
            top,
            offers=Offers(offered, top[split:]),
            visited=Visited(visited, visited[split:]) if n_probes else None,
        )
    found, everything = pairs_of(top), sorted_pairs(rows, rows, range(n_rows))
    for row in range(n_rows):
        others = range(split, n_rows) if row < split else range(split)
        met = {
            other
            for other in others
            if not n_probes or visited[other, 0] in visited[row] or visited[row, 0] in visited[other]
        }
        expected = sorted(
            (distance, int(positions[other]))
            for distance, other in everything[row]
            if other in met and offered[other] != NO_POSITION and distance <= bounds[row]
        )
        assert found[row] == expected[:n_neighbors]


def test_a_bound_is_inclusive_and_excludes_only_members_beyond_it():
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


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bound_excludes_nearly_all_members_that_are_not_nearest(precision):
    rows = np.random.default_rng(0).normal(size=(1000, 1024)).astype(np.float32)
    members = Members.prepare(rows, np.arange(1000), precision=precision)
    top = TopK.empty(1000, 6)
    search_block(rows, np.arange(1000), members, top)
    rounded = block_search._round(rows, np.arange(1000), members.centre, precision, None, queries=True)
    ((_, _, tile),) = members.tiles
    product, upper = multiply(rounded, tile), np.empty(1000, np.float32)
    passing = 0
    for query in range(1000):
        threshold = block_search._threshold(
            top.sq_distances[query, -1],
            rounded.sq_norms[query],
            np.float64(rounded.errors[query] + tile.errors.max()),
            accumulation(1024) * np.float64(rounded.sq_norms[query] + tile.sq_norms.max()),
        )
        passing += block_search._bound_products(
            product[query],
            precision == "bfloat16",
            np.float32(output_error(precision)),
            tile.sq_norms * np.float32(0.5),
            threshold,
            np.full(1000, -np.inf, np.float32),
            np.float32(0),
            upper,
        )[0]
    # The 6 nearest of 1,000 members always pass; a useless bound would let all pass.
    assert passing / 1000 < 20
