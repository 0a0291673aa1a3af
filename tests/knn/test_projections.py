"""Projections lengthen no distance beyond their stated errors, and searching by them changes no result."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn.block_search import Members, search_block
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.projections import ProjectedRows, Projection
from d2prune.knn.top_k import TopK
from tests.knn.rows import PRECISIONS, always_project, pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs


def random_axes(rng, n_dims, n_axes, deviation):
    orthonormal = np.linalg.qr(rng.normal(size=(n_dims, n_axes)))[0]
    return (orthonormal + rng.normal(size=orthonormal.shape) * deviation).astype(np.float32)


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["lattice", "jitter", "plain"]),
    n_dims=st.sampled_from([3, 16, 40, 130]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    deviation=st.sampled_from([0.0, 1e-5, 1e-2]),
)
def test_projections_lengthen_no_distance(seed, kind, n_dims, scale, deviation):
    rng = np.random.default_rng(seed)
    rows = rows_with_ties(rng, 30, n_dims, kind) * np.float32(scale)
    projected = Projection(random_axes(rng, n_dims, min(n_dims, 7), deviation)).project(rows)
    values, errors = projected.values.astype(float), projected.errors.astype(float)
    true = np.linalg.norm(rows[:, None].astype(float) - rows, axis=2)
    short = np.linalg.norm(values[:, None] - values, axis=2)
    assert (short <= (true + errors[:, None] + errors) * (1 + 1e-12)).all()


def test_errors_are_small():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projected = Projection(random_axes(rng, 512, 127, 0.0)).project(rows)
    assert projected.errors.max() < 2e-4
    np.testing.assert_allclose(np.linalg.norm(projected.values, axis=1), 1, rtol=1e-5)


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["lattice", "jitter", "plain"]),
    n_dims=st.sampled_from([2, 16, 40]),
    n_members=st.integers(1, 200),
    n_neighbors=st.integers(1, 9),
    precision=st.sampled_from(PRECISIONS),
    deviation=st.sampled_from([0.0, 1e-2]),
)
def test_searching_by_projections_equals_sorting_all_pairs(
    seed, kind, n_dims, n_members, n_neighbors, precision, deviation
):
    rng = np.random.default_rng(seed)
    rows = rows_with_ties(rng, n_members, n_dims, kind)
    queries = np.concatenate([rows_with_ties(rng, 4, n_dims, kind), rows[:6]])
    positions = rng.permutation(1000)[:n_members]
    projection = Projection(random_axes(rng, n_dims, int(rng.integers(1, n_dims)), deviation))
    members = Members.prepare(rows, positions, precision=precision, projected=projection.project(rows))
    top = TopK.empty(len(queries), n_neighbors)
    search_block(queries, rng.permutation(len(queries)), members, top, projection.project(queries))
    assert pairs_of(top) == [p[:n_neighbors] for p in sorted_pairs(queries, rows, positions)]


def test_the_graph_is_the_same_without_projections(monkeypatch):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(40, 24))[rng.integers(0, 40, 3000)] + rng.normal(size=(3000, 24)) / 2).astype(
        np.float32
    )
    plain = knn_graph_report(rows, 5, nlist=60, nprobe=7, threads=2)
    with monkeypatch.context() as patch:
        always_project(patch)
        lengths = []
        project = Projection.project
        patch.setattr(Projection, "project", lambda *args: lengths.append(len(args[1])) or project(*args))
        short = knn_graph_report(rows, 5, nlist=60, nprobe=7, threads=2)
    assert max(lengths) == 3000
    assert short.graph.indices.tobytes() == plain.graph.indices.tobytes()
    assert short.graph.sq_distances.tobytes() == plain.graph.sq_distances.tobytes()
    assert short.neighbours.tobytes() == plain.neighbours.tobytes()


def test_nothing_is_projected_if_it_would_not_pay():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 512)).astype(np.float32)
    flat = noise[:, :60] @ rng.normal(size=(60, 512)).astype(np.float32)
    assert Projection.fit(flat, 2000, 10**9) is not None
    assert Projection.fit(noise, 2000, 10**9) is None  # no principal axes
    short = np.ascontiguousarray(flat[:, :128])
    assert Projection.fit(short, 2000, 10**9) is None  # as short as a projection
    assert Projection.fit(flat, 2000, 10**6) is None  # few pairs
    assert Projection.fit(flat, 10**7, 10**9) is None  # few pairs per row


def test_projections_of_a_range_of_rows():
    projected = ProjectedRows(np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6, dtype=np.float32))
    assert projected[2:4].values.tolist() == [[4, 5], [6, 7]]
    assert projected[2:4].errors.tolist() == [2, 3]
