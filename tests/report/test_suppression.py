import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.report import suppression
from d2prune.report.duplicate_groups import group_near_copies, make_groups
from d2prune.report.suppression import NearEdges

NEIGHBORS = pa.table(
    {
        "indices": pa.array([[1, 7], [], [0, 5, 9]], pa.list_(pa.int64())),
        "sq_distances": pa.array([[0.1, 0.02], [], [2.0, 0.05, 0.3]], pa.list_(pa.float32())),
    }
)


def test_cosine_is_that_of_the_edge_to_the_suppressor():
    cosine = suppression.suppressor_cosines(NEIGHBORS, np.array([7, -1, 0]))
    np.testing.assert_allclose(cosine, [0.99, np.nan, 0.0], atol=1e-6)
    assert np.isnan(suppression.suppressor_cosines(NEIGHBORS.slice(0, 0), np.zeros(0, np.int64))).all()


def test_near_edges_are_canonical_positions():
    edges = suppression.near_edges(NEIGHBORS, start=100)
    assert list(zip(edges.from_E, edges.to_E, strict=True)) == [(100, 1), (100, 7), (102, 5)]


def test_only_suppressed_means_enough_support_but_not_kept():
    reasons = pa.chunked_array([["kept", "below-budget", "below-budget", "cut-off", "duplicate"]])
    forward = np.array([9.0, 2.0, 1.0, 9.0, np.nan])
    assert suppression.only_suppressed(reasons, forward, 2.0).tolist() == [False, True, False, False, False]


@given(st.lists(st.one_of(st.floats(-1, 1), st.just(float("nan"))), max_size=40))
def test_every_cosine_is_in_a_bar_on_its_side_of_the_limit(cosines):
    values = np.array(cosines, np.float64)
    found = suppression.summarise(values)
    known = values[np.isfinite(values)]
    assert found.samples == found.counts.sum() == len(known)
    assert found.unlike == (known < 0.9).sum()
    below = np.round(found.edges[1:], 9) <= 0.9
    assert found.counts[below].sum() == pytest.approx(
        found.unlike, abs=int((np.abs(known - 0.9) < 1e-6).sum())
    )
    assert found.edges[-1] == pytest.approx(1)
    assert found.share <= 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    ),
    st.randoms(),
)
def test_groups_of_near_copies_follow_the_greedy_rule(graph, random):
    n, drawn = graph
    pairs = sorted({(a, b) for a, b in drawn if a != b} | {(b, a) for a, b in drawn if a != b})
    positions = np.arange(n) * 3 + 1
    rank = np.array(random.sample(range(100), n))
    edges = NearEdges(
        positions[[a for a, _ in pairs]] if pairs else np.zeros(0, np.int64),
        positions[[b for _, b in pairs]] if pairs else np.zeros(0, np.int64),
        np.full(len(pairs), 0.01, np.float32),
    )
    found = group_near_copies(edges, positions, rank, 0.95)
    keeper = {}
    for node in sorted(range(n), key=lambda node: -rank[node]):
        near = [b for a, b in pairs if a == node and b in keeper and keeper[b] == b]
        keeper[node] = min(near) if near else node
    expected = {
        positions[k]: sorted(positions[i] for i in keeper if keeper[i] == k and i != k)
        for k in set(keeper.values())
    }
    expected = {k: members for k, members in expected.items() if members}
    groups = [found.group(g).tolist() for g in range(len(found))]
    assert {group[0]: group[1:] for group in groups} == expected
    assert [-len(group) for group in groups] == sorted(-len(group) for group in groups)


def test_no_duplicates_give_no_groups():
    assert len(make_groups(np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0
