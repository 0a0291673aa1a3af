"""Merging parts in any order gives the nearest of their union, each pair once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn.merge import merge, without_self
from d2prune.knn.top_k import NO_POSITION, TopK
from tests.knn.rows import pairs_of


def top_of(pairs, n_best):
    top = TopK.empty(1, n_best)
    for slot, (distance, position) in enumerate(sorted(pairs)[:n_best]):
        top.sq_distances[0, slot], top.positions[0, slot] = distance, position
    return top


found = st.dictionaries(st.integers(0, 30), st.integers(0, 3).map(float), max_size=12)


@settings(deadline=None, max_examples=100)
@given(found, st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=4), st.integers(1, 6))
def test_merge_equals_the_sorted_union(pool, parts, n_best):
    tops = [top_of([(pool[p], p) for p in part if p in pool], n_best) for part in parts]
    seen = set().union(*parts) & pool.keys()
    expected = sorted((pool[p], p) for p in seen)[:n_best]
    for order in (tops, tops[::-1]):
        assert pairs_of(merge(order)) == [expected]


def test_slots_that_only_hold_a_bound_come_out_empty():
    merged = merge([TopK.empty(1, 3, np.array([0.5], np.float32))])
    assert np.isinf(merged.sq_distances).all() and (merged.positions == NO_POSITION).all()


def test_a_query_is_removed_from_its_own_neighbours():
    tops = merge([TopK(np.array([[0, 1, 2], [0, 0, 0]], np.float32), np.array([[5, 4, 3], [1, 2, 3]]))])
    assert pairs_of(without_self(tops, np.array([5, 9]))) == [[(1, 4), (2, 3)], [(0, 1), (0, 2)]]
    assert pairs_of(without_self(tops, np.array([3, 2]))) == [[(0, 5), (1, 4)], [(0, 1), (0, 3)]]
