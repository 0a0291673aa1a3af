"""The search of lists is the GPU's only if that gives the same bits in less time."""

import dataclasses
import time

import numpy as np
import pytest
import torch

from d2prune.knn import backend as module
from d2prune.knn.backend import faster, list_search
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.device_search import DeviceSearch
from d2prune.knn.lists import search_lists

N = 700


class Remembering:
    """Finds what the CPU finds; from the second time on, in no time."""

    def __init__(self):
        self.found = None

    def __call__(self, lists, queries, visits, top):
        if self.found is None:
            search_lists(lists, queries, visits, top)
            self.found = top
        else:
            top.sq_distances[:], top.positions[:] = self.found.sq_distances, self.found.positions


def slow(*arguments):
    time.sleep(0.2)
    search_lists(*arguments)


def wrong(lists, queries, visits, top):
    search_lists(dataclasses.replace(lists, rows=lists.rows[::-1].copy()), queries, visits, top)


def broken(*_):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def test_the_faster_one_that_agrees_is_taken():
    quick = Remembering()
    assert faster(quick, 48, 2_000) is quick


@pytest.mark.parametrize("candidate", [slow, wrong, broken])
def test_what_is_slower_wrong_or_broken_is_not(candidate):
    assert faster(candidate, 32, N) is search_lists


def test_a_graph_searched_by_the_device_has_the_same_bytes(monkeypatch):
    # On torch's CPU device where there is no GPU: the same code, chosen by hand.
    rows = np.random.default_rng(0).normal(size=(1500, 24)).astype(np.float32)
    expected = knn_graph_report(rows, 4, nlist=30, nprobe=4, threads=2)
    search = DeviceSearch("cuda" if torch.cuda.is_available() else "cpu", torch.float32)
    calls = []

    def chosen(n_dims):
        calls.append(n_dims)
        return search

    monkeypatch.setattr(module, "list_search", chosen)
    found = knn_graph_report(rows, 4, nlist=30, nprobe=4, threads=2)
    assert len(calls) >= 3
    for name in ("indptr", "indices", "sq_distances"):
        assert getattr(found.graph, name).tobytes() == getattr(expected.graph, name).tobytes()


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    list_search.cache_clear()
    assert list_search(16) is search_lists
    list_search.cache_clear()


def test_no_images_where_a_gpu_searches(monkeypatch):
    rows = (np.random.default_rng(0).normal(size=(600, 40)) @ np.ones((40, 300))).astype(np.float32)
    assert module.projection_for(rows, 600, 10**9) is not None
    monkeypatch.setattr(module, "list_search", lambda n_dims: DeviceSearch("cpu"))
    assert module.projection_for(rows, 600, 10**9) is None
