import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.report import metrics
from tests.report.synthetic import unit


def points(count, dimension=6, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, dimension))).astype(np.float32)


def test_coverage_equals_brute_force():
    pool = points(60)
    order = np.random.default_rng(1).permutation(60)
    queries = np.array([0, 3, 17, 59, 20, 21, 22, 23, 24])
    sizes = np.array([1, 5, 30, 60])
    found = metrics.coverage_gaps(metrics.distances(pool[queries], pool), queries, order, sizes)
    naive = []
    for size in sizes:
        kept = order[:size]
        gaps = [0.0 if q in kept else min(np.linalg.norm(pool[q] - pool[k]) for k in kept) for q in queries]
        naive.append(np.mean(gaps))
    np.testing.assert_allclose(found, naive, atol=1e-3)
    assert found[-1] == 0
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_share_of_near_copies_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    pairs = {tuple(rng.choice(30, 2, replace=False).tolist()) for _ in range(12)}
    pairs |= {(b, a) for a, b in pairs}
    order, sizes = rng.permutation(30), np.array([1, 4, 15, 30])
    ends = np.array(sorted(pairs))
    found = metrics.copies_share(ends[:, 0], ends[:, 1], order, sizes)
    for size, share in zip(sizes, found, strict=True):
        kept = set(order[:size].tolist())
        assert share == pytest.approx(sum(any((a, b) in pairs for b in kept) for a in kept) / size)


def test_nearest_other_equals_brute_force():
    pool = points(40)
    pool[7] = pool[3]
    found = metrics.nearest_other(metrics.distances(pool, pool), np.arange(40))
    for i in range(40):
        assert found[i] == pytest.approx(
            min(np.linalg.norm(pool[i] - pool[j]) for j in range(40) if j != i), abs=1e-3
        )
    assert metrics.near_duplicate_share(found) == pytest.approx(2 / 40)


def test_nearest_other_of_a_single_point_is_infinite():
    assert np.isinf(metrics.nearest_other(metrics.distances(points(1), points(1)), np.array([0]))).all()


def test_effective_directions_of_equal_and_orthogonal_vectors():
    assert metrics.effective_directions(np.tile(points(1), (9, 1))) == pytest.approx(1)
    assert metrics.effective_directions(np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert np.isnan(metrics.effective_directions(points(0)))


def test_clusters_separate_distinct_groups_and_are_deterministic():
    centres = np.eye(4, 6)
    truth = np.arange(80) % 4
    pool = unit(centres[truth] + np.random.default_rng(0).normal(size=(80, 6)) * 0.05).astype(np.float32)
    label, centroids = metrics.cluster(pool, 4, seed=1)
    assert centroids.shape == (4, 6)
    assert len(set(zip(truth.tolist(), label.tolist(), strict=True))) == len(set(label.tolist())) == 4
    again, _ = metrics.cluster(pool, 4, seed=1)
    assert np.array_equal(label, again)


def test_every_point_is_labelled_with_its_nearest_centroid():
    pool = points(60)
    label, centroids = metrics.cluster(pool, 5, seed=0)
    squares = np.square(pool[:, None].astype(float) - centroids[None]).sum(axis=2)
    np.testing.assert_allclose(squares[np.arange(60), label], squares.min(axis=1), atol=1e-6)
    assert np.array_equal(label, metrics.nearest_centroids(pool, centroids))


def test_equal_points_are_one_cluster():
    label, _ = metrics.cluster(np.tile(points(1), (10, 1)), 4, seed=0)
    assert set(label.tolist()) == {0}


def test_cluster_shares_are_counts():
    label = np.array([0, 0, 2, 2, 2, 0])
    kept = np.array([True, True, False, True, False, False])
    assert metrics.cluster_shares(label, kept) == [(2, 3, pytest.approx(1 / 3)), (0, 3, pytest.approx(2 / 3))]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.data())
def test_the_nearest_queries_are_those_of_a_full_sort(count, data):
    """Many ties; nearest first, ties by the order of the queries."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    queries = np.sort(rng.permutation(20)[:count])
    k = data.draw(st.integers(0, count - 1))
    distances = rng.integers(0, 4, (count, 20)).astype(np.float32)
    nearest, found = metrics.nearest_queries(distances, queries, k)
    for q in range(count):
        others = sorted((distances[q, queries[o]], o) for o in range(count) if o != q)[:k]
        assert list(zip(found[q].tolist(), nearest[q].tolist(), strict=True)) == others
