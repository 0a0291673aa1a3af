"""The search by faiss gives the CPU kernel's bits, whatever faiss returns within its error.

On a GPU if there is one and faiss can use it; else candidates come from `faiss.knn`.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.knn import faiss_search
from d2prune.knn.block_search import Offers, search_block
from d2prune.knn.faiss_search import FaissSearch, HalfRows, nearest_on_cpu, open_gpu
from d2prune.knn.lists import Lists, Visits, search_lists, visits_of
from d2prune.knn.top_k import NO_POSITION, TopK
from tests.knn.rows import pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs

DEVICES = {"cpu": nearest_on_cpu}
if torch.cuda.is_available() and (gpu := open_gpu()) is not None:
    DEVICES["gpu"] = gpu


def shaken(queries, members, count):
    """Candidates whose distances are wrong by as much as the bound allows, sorted again."""
    sq_distances, found = nearest_on_cpu(queries, members, count)
    norms = (queries.astype(np.float32) ** 2).sum(1)[:, None] + (members.astype(np.float32) ** 2).sum(1)[
        found
    ]
    error = faiss_search.accumulation(queries.shape[1]) * norms
    sq_distances += np.random.default_rng(count).uniform(-1, 1, error.shape).astype(np.float32) * error
    order = np.argsort(sq_distances, axis=1)
    return np.take_along_axis(sq_distances, order, 1), np.take_along_axis(found, order, 1)


@pytest.mark.parametrize("device", [*DEVICES, "shaken"])
@pytest.mark.parametrize("candidates", [1, 3, 32])
@pytest.mark.parametrize("kind", ["lattice", "jitter", "plain"])
def test_equals_sorting_all_pairs(device, candidates, kind, monkeypatch):
    monkeypatch.setattr(faiss_search, "CANDIDATES", candidates)
    monkeypatch.setattr(faiss_search, "TILE_QUERIES", 16)
    nearest = DEVICES.get(device, shaken)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n_members, n_best, n_dims = (
            int(rng.integers(1, 80)),
            int(rng.integers(1, 9)),
            int(rng.integers(1, 40)),
        )
        members = rows_with_ties(rng, n_members, n_dims, kind)
        queries = np.concatenate([rows_with_ties(rng, 30, n_dims, kind), members[:6]])
        positions = rng.permutation(500)[:n_members]
        top = TopK.empty(len(queries), n_best)
        search = FaissSearch(nearest, threads=2)
        half = n_members // 2
        for part in (slice(half, None), slice(0, half)):
            if len(positions[part]):
                lists = Lists.single(members[part].copy(), positions[part])
                all_visits = Visits.of_all(0, len(queries))
                search(lists, queries, Visits(all_visits.indptr, rng.permutation(len(queries))), top)
        assert pairs_of(top) == [p[:n_best] for p in sorted_pairs(queries, members, positions)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 120),
    st.integers(1, 40),
    st.integers(1, 12),
    st.floats(0, 1),
    st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
)
def test_same_bits_as_the_cpu_kernel(seed, n_rows, n_dims, n_best, copies, scale):
    """Random lists, visits and bounds; rows with copies, and rows that differ by less than float16 shows."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n_rows, n_dims)) * scale).astype(np.float32)
    copied = rng.random(n_rows) < copies
    rows[copied] = rows[rng.integers(0, n_rows, copied.sum())]
    near = rng.random(n_rows) < copies / 2
    rows[near] *= np.float32(1 + 1e-6)
    cuts = np.sort(rng.integers(0, n_rows + 1, 3))
    lists = Lists(
        rows, rng.permutation(n_rows), np.array([0, *cuts, n_rows]), rng.normal(size=(4, n_dims)).astype("f4")
    )
    probes = rng.permuted(np.tile(np.arange(-1, 4, dtype=np.int32), (n_rows, 1)), axis=1)[:, :3]
    bounds = rng.choice([0.0, scale, np.inf], n_rows).astype(np.float32)
    one, other = (TopK.empty(n_rows, n_best, bounds) for _ in range(2))
    offered = np.where(rng.random(n_rows) < 0.9, lists.positions, NO_POSITION)
    tops = []
    for search, top in ((search_lists, one), (FaissSearch(nearest_on_cpu, threads=1), other)):
        tops.append(TopK.empty(n_rows, n_best, bounds[::-1]))
        search(lists, rows, visits_of(probes, 4), top, None, Offers(offered, tops[-1]))
    for first, second in ((one, other), tops):
        assert first.positions.tobytes() == second.positions.tobytes()
        assert first.sq_distances.tobytes() == second.sq_distances.tobytes()


@pytest.mark.parametrize("n_dims", [1, 16, 100, 512])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 50.0])
def test_the_error_of_rounding_is_bounded(n_dims, norm):
    rows = np.random.default_rng(n_dims).normal(size=(200, n_dims)).astype(np.float32)
    rows *= np.float32(norm) / np.linalg.norm(rows, axis=1, keepdims=True)
    half = HalfRows.of(rows, threads=1)
    exact = np.linalg.norm(rows.astype(np.float64) - half.values.astype(np.float64), axis=1)
    assert (half.errors >= exact).all() and (half.errors <= exact * 1.01 + 1e-6 * norm).all()


def test_few_queries_need_the_cpu_kernel(monkeypatch):
    """On rows like embeddings, the candidates nearly always suffice."""
    again = []
    monkeypatch.setattr(
        faiss_search,
        "search_block",
        lambda *arguments: (again.append(arguments[1]), search_block(*arguments)),
    )
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 24)) @ rng.normal(size=(24, 96))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    top = TopK.empty(len(rows), 6)
    FaissSearch(nearest_on_cpu)(Lists.single(rows, np.arange(4000)), rows, Visits.of_all(0, 4000), top)
    assert sum(map(len, again)) < 40


def test_a_group_of_copies_larger_than_the_candidates(monkeypatch):
    monkeypatch.setattr(faiss_search, "CANDIDATES", 2)
    rows = np.ones((90, 16), np.float32)
    lists, top = Lists.single(rows, np.arange(90)[::-1]), TopK.empty(90, 4)
    FaissSearch(nearest_on_cpu)(lists, rows, Visits.of_all(0, 90), top)
    assert (top.positions == np.arange(4)).all() and (top.sq_distances == 0).all()


def test_more_neighbours_than_a_gpu_selects_are_searched_on_the_cpu():
    rows = np.random.default_rng(1).normal(size=(1100, 4)).astype(np.float32)
    lists, visits = Lists.single(rows, np.arange(1100)), Visits.of_all(0, 5)
    one, other = (TopK.empty(1100, 1050) for _ in range(2))
    search_lists(lists, rows, visits, one)
    FaissSearch(None)(lists, rows, visits, other)
    assert one.positions.tobytes() == other.positions.tobytes()
