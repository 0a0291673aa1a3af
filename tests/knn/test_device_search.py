"""The device search gives the CPU kernel's bits, on torch's CPU device and on CUDA if there is a GPU."""

import numpy as np
import pytest
import torch

from d2prune.knn import device_search
from d2prune.knn.block_search import TopK
from d2prune.knn.device_search import DeviceSearch
from d2prune.knn.distances import sq_distance_float64
from d2prune.knn.lists import Lists, Visits, search_lists, visits_of
from tests.knn.rows import pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["lattice", "jitter", "plain"])
@pytest.mark.parametrize("tile", [16, 8192])
def test_equals_sorting_all_pairs(device, dtype, kind, tile, monkeypatch):
    for name in ("TILE_QUERIES", "TILE_MEMBERS", "WINDOW"):
        monkeypatch.setattr(device_search, name, tile)
    monkeypatch.setattr(device_search, "PAIRS", 8 * tile)
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
        search = DeviceSearch(device, dtype)
        half = n_members // 2
        for part in (slice(half, None), slice(0, half)):
            if len(positions[part]):
                lists = Lists.single(members[part].copy(), positions[part])
                all_visits = Visits.of_all(0, len(queries))
                search(lists, queries, Visits(all_visits.indptr, rng.permutation(len(queries))), top)
        assert pairs_of(top) == [p[:n_best] for p in sorted_pairs(queries, members, positions)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_dims", [96, 100])
def test_same_bits_as_the_cpu_kernel(device, n_dims):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1500, n_dims)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lists = Lists(rows, rng.permutation(1500), np.array([0, 400, 400, 900, 1500]), rows[:4])
    visits = visits_of(rng.permuted(np.tile(np.arange(-1, 4, dtype=np.int32), (1500, 1)), axis=1)[:, :3], 4)
    one, other = (TopK.empty(1500, 6, np.full(1500, 1.9, np.float32)) for _ in range(2))
    search_lists(lists, rows, visits, one)
    DeviceSearch(device)(lists, rows, visits, other)
    assert one.positions.tobytes() == other.positions.tobytes()
    assert one.sq_distances.tobytes() == other.sq_distances.tobytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_dims", [1, 15, 16, 100, 512])
def test_lane_sums_use_the_canonical_order(device, n_dims):
    rows, others = np.random.default_rng(n_dims).normal(size=(2, 400, n_dims)).astype(np.float32)
    squares = (
        torch.from_numpy(rows).to(device).double() - torch.from_numpy(others).to(device).double()
    ).square()
    expected = [sq_distance_float64(*pair) for pair in zip(rows, others, strict=True)]
    assert device_search._lane_sums(squares).cpu().tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
def test_a_query_with_more_candidates_than_one_merge_holds(device, monkeypatch):
    monkeypatch.setattr(device_search, "_WIDTH", 2)
    rows = np.ones((90, 16), np.float32)
    lists, top = Lists.single(rows, np.arange(90)[::-1]), TopK.empty(90, 4)
    DeviceSearch(device)(lists, rows, Visits.of_all(0, 90), top)
    assert (top.positions == np.arange(4)).all() and (top.sq_distances == 0).all()
