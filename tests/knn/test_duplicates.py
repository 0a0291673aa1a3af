"""Collapsing duplicates and expanding them again gives what searching every row gives."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn import duplicates
from d2prune.knn.block_search import Members, search_block
from d2prune.knn.duplicates import collapse, expand
from d2prune.knn.top_k import TopK
from tests.knn.rows import pairs_of
from tests.oracles_knn import sorted_pairs


def test_groups_are_the_identical_rows():
    rows = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [1, 2], [0, 0], [-0.0, 0]], np.float32)
    groups = collapse(rows)
    assert groups.first_R.tolist() == [0, 1, 3, 6, 7]
    assert groups.group_N.tolist() == [0, 1, 0, 2, 1, 0, 3, 4]
    assert groups.rows_N.tolist() == [0, 2, 5, 1, 4, 3, 6, 7]
    assert groups.indptr.tolist() == [0, 3, 5, 6, 7, 8]


def test_rows_with_equal_hashes_are_compared_by_their_bytes(monkeypatch):
    monkeypatch.setattr(duplicates, "_hash_rows", lambda words, start, stop, out: out[start:stop].fill(0))
    rows = np.array([[1], [2], [1], [3], [2], [2]], np.float32)
    assert collapse(rows).group_N.tolist() == [0, 1, 0, 2, 1, 1]


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 3), st.integers(1, 8))
def test_search_then_expand_equals_searching_every_row(seed, n_rows, n_dims, n_best):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n_rows, n_dims)).astype(np.float32)
    positions = np.sort(rng.permutation(500)[:n_rows])
    queries = rng.integers(-1, 2, (10, n_dims)).astype(np.float32)
    groups = collapse(rows)
    top = TopK.empty(10, n_best)
    members = Members.prepare(rows[groups.first_R], positions[groups.first_R])
    search_block(queries, np.arange(10), members, top)
    expanded = expand(top, groups, positions)
    assert pairs_of(expanded) == [p[:n_best] for p in sorted_pairs(queries, rows, positions)]
