"""The accelerator search gives the CPU kernel's bits; run on torch's CPU device, and on CUDA where there is one."""

import numpy as np
import pytest
import torch

from pipeline.graph import device_search
from pipeline.graph.device_search import DeviceSearch
from pipeline.graph.search import Members, TopK, search_block
from tests.graph.test_search import pairs_of, rows_with_ties
from tests.oracles_knn import sorted_pairs

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["lattice", "jitter", "plain"])
@pytest.mark.parametrize("tile", [16, 8192])
def test_equals_sorting_every_pair(device, dtype, kind, tile, monkeypatch):
    monkeypatch.setattr(device_search, "TILE_QUERIES", tile)
    monkeypatch.setattr(device_search, "TILE_MEMBERS", tile)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        n_members, n_best = int(rng.integers(1, 80)), int(rng.integers(1, 9))
        members = rows_with_ties(rng, n_members, 24, kind)
        queries = np.concatenate([rows_with_ties(rng, 30, 24, kind), members[:6]])
        positions = rng.permutation(500)[:n_members]
        top = TopK.empty(len(queries), n_best)
        search = DeviceSearch(device, dtype)
        half = n_members // 2
        for part in (slice(half, None), slice(0, half)):
            if len(positions[part]):
                centre = members.mean(axis=0)
                search(queries, rng.permutation(len(queries)), members[part].copy(), positions[part], centre, top)
        assert pairs_of(top) == [p[:n_best] for p in sorted_pairs(queries, members, positions)]


@pytest.mark.parametrize("device", DEVICES)
def test_same_bits_as_the_cpu_kernel(device):
    rows = np.random.default_rng(0).normal(size=(1500, 96)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    one, other = TopK.empty(1500, 6), TopK.empty(1500, 6)
    search_block(rows, np.arange(1500), Members.prepare(rows, np.arange(1500)), one)
    DeviceSearch(device)(rows, np.arange(1500), rows, np.arange(1500), rows.mean(axis=0), other)
    assert one.positions.tobytes() == other.positions.tobytes()
    assert one.sq_distances.tobytes() == other.sq_distances.tobytes()
