"""knn_graph is exact where it promises to be, and otherwise reaches the recall that it reports."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.errors import UserError
from d2prune.knn import backend, in_memory
from d2prune.knn.faiss_search import FaissSearch, nearest_on_cpu
from d2prune.knn.in_memory import knn_graph, knn_graph_report
from tests.oracles_knn import edges_of, knn_edges, unit_rows


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(1, 40),
    n_dims=st.sampled_from([1, 2, 3, 17]),
    n_neighbors=st.integers(1, 6),
    lattice=st.booleans(),
    dtype=st.sampled_from([np.float16, np.float32]),
    nlist=st.sampled_from([None, 1, 3, 50]),
)
def test_exact_with_ties_and_nprobe_of_all_lists_equals_brute_force(
    seed, n_rows, n_dims, n_neighbors, lattice, dtype, nlist
):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (n_rows, n_dims)) if lattice else rng.normal(size=(n_rows, n_dims))
    rows = rows.astype(dtype)
    rows[~rows.any(axis=1)] = 1
    graph = knn_graph(rows, n_neighbors, nlist=nlist, nprobe=None if nlist is None else 50)
    graph.validate()
    assert edges_of(graph) == knn_edges(unit_rows(rows), n_neighbors)


def clustered(n_rows, n_dims=32, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_rows // 50, n_dims))
    return (centres[rng.integers(0, len(centres), n_rows)] + 0.7 * rng.normal(size=(n_rows, n_dims))).astype(
        np.float16
    )


def test_the_target_is_reached_and_the_measured_recall_is_true(monkeypatch):
    monkeypatch.setattr(in_memory, "EXACT_BELOW", 1000)
    rows = clustered(6000)
    report = knn_graph_report(rows, 5, target_recall=0.95)
    report.graph.validate()
    exact = knn_graph_report(rows, 5)
    assert exact.recall.value == 1 and exact.nlist == 0
    true_recall = (report.sq_distances <= exact.sq_distances[:, -1:]).sum() / report.sq_distances.size
    assert true_recall >= 0.95
    assert report.recall.low <= true_recall <= report.recall.high
    assert report.nprobe < report.nlist / 2


def test_the_number_of_threads_does_not_change_the_graph():
    rows = clustered(3000)
    one, three = (knn_graph_report(rows, 5, nlist=40, nprobe=4, threads=threads).graph for threads in (1, 3))
    assert one.indices.tobytes() == three.indices.tobytes()
    assert one.sq_distances.tobytes() == three.sq_distances.tobytes()


def test_small_pools_are_exact_for_any_target():
    rows = clustered(300)
    report = knn_graph_report(rows, 3, target_recall=0.5)
    assert report.nlist == 0
    assert edges_of(report.graph) == edges_of(knn_graph(rows, 3))


@pytest.mark.parametrize("options", [{}, {"nlist": 50, "nprobe": 3}])
def test_identical_rows_are_searched_once(monkeypatch, options):
    # Without collapsing, 60,000 identical rows would need 3.6e9 distances: minutes.
    rows = np.concatenate([np.ones((60_000, 8)), np.eye(8)]).astype(np.float16)
    searched = []
    for name in ("brute_force", "search_in_memory"):
        search = getattr(in_memory, name)
        monkeypatch.setattr(
            in_memory,
            name,
            lambda rows_RD, *rest, search=search: searched.append(len(rows_RD)) or search(rows_RD, *rest),
        )
    graph = knn_graph(rows, 3, **options)
    assert searched and max(searched) == 9
    graph.validate()
    assert graph.indices[graph.indptr[50_000] : graph.indptr[50_001]].tolist() == [0, 1, 2]


def test_a_pool_of_identical_rows():
    graph = knn_graph(np.ones((6, 4), np.float32), 2)
    assert edges_of(graph) == knn_edges(np.ones((6, 4), np.float32), 2)


@pytest.mark.parametrize("options", [{}, {"nprobe": 1}, {"target_recall": 0.9}])
def test_one_row_has_no_neighbours(options):
    graph = knn_graph(np.ones((1, 4), np.float16), 5, **options)
    assert graph.indptr.tolist() == [0, 0] and graph.n_edges == 0


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (np.zeros((0, 4), np.float32), {}, "0 rows"),
        (np.ones((3, 4), np.float32), {"n_neighbors": 0}, "n_neighbors: found 0"),
        (np.ones((3, 4), np.float32), {"target_recall": 1.5}, "target_recall: found 1.5"),
        (np.ones((3, 4), np.float32), {"nprobe": 0}, "nprobe: found 0"),
        (np.ones((3, 4), np.float32), {"nprobe": 1, "target_recall": 0.9}, "expected only one of them"),
        (np.array([[1, 1], [0, 0]], np.float32), {}, "row 1: found all zeros"),
        (np.array([[1, 1], [1, np.nan]], np.float32), {}, "row 1: found NaN"),
    ],
)
def test_invalid_arguments_are_refused(rows, options, message):
    with pytest.raises(UserError, match=message):
        knn_graph(rows, **options)


def test_a_target_recall_of_one_is_exact(monkeypatch):
    monkeypatch.setattr(in_memory, "EXACT_BELOW", 100)
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    exact, target = knn_graph_report(rows, 4), knn_graph_report(rows, 4, target_recall=1.0)
    assert target.nlist == 0 and target.recall == exact.recall
    assert target.graph.indices.tobytes() == exact.graph.indices.tobytes()
    assert knn_graph_report(rows, 4, target_recall=0.999).nlist > 0


def test_an_exact_graph_by_faiss_has_the_same_bits_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(900, 12)).astype(np.float32)
    rows[rng.integers(0, 900, 200)] = rows[0]
    expected = knn_graph_report(rows, 5, target_recall=1.0).graph
    search = FaissSearch(nearest_on_cpu)
    monkeypatch.setattr(backend, "choose_search", lambda n_dims: search)
    for block in (2**20, 250):
        monkeypatch.setattr(backend, "_GPU_BLOCK", block)
        found = knn_graph_report(rows, 5, target_recall=1.0).graph
        for name in ("indptr", "indices", "sq_distances"):
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()
