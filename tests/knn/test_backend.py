"""The GPU searches lists only if it gives the same bits as the CPU in less time."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2prune.compiled.threads import available_cores
from d2prune.knn import backend
from d2prune.knn.backend import choose_search, faster_search, fit_projection
from d2prune.knn.faiss_search import FaissSearch, nearest_on_cpu
from d2prune.knn.in_memory import knn_graph_report
from d2prune.knn.lists import search_lists

N = 700


@pytest.fixture
def timed(monkeypatch):
    """Wrap a search so that its calls seem to take the given seconds; the CPU takes 1 s on all cores."""
    clock = SimpleNamespace(now=0.0)

    def wrap(search, *seconds):
        remaining = list(seconds)

        def run(*arguments):
            clock.now += remaining.pop(0)
            search(*arguments)

        return run

    monkeypatch.setattr(backend, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(backend, "search_lists", wrap(search_lists, *[float(available_cores())] * 2))
    return wrap


def search_wrongly(lists, queries, visits, top):
    search_lists(dataclasses.replace(lists, rows=lists.rows[::-1].copy()), queries, visits, top)


def fail(*_):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def test_a_faster_search_with_the_same_result_is_chosen(timed):
    # The first attempt compiles and does not count.
    candidate = timed(search_lists, 100.0, 0.9)
    assert faster_search(candidate, 48, N) is candidate


@pytest.mark.parametrize(
    ("search", "seconds"),
    [(search_lists, 1.1), (search_wrongly, 0.1), (fail, 0.1)],
    ids=["slow", "wrong", "failing"],
)
def test_a_slow_wrong_or_failing_search_is_not_chosen(timed, search, seconds):
    assert faster_search(timed(search, seconds, seconds), 32, N) is backend.search_lists


def test_the_search_by_faiss_gives_the_same_graph(monkeypatch):
    # What finds the candidates on a GPU is `faiss.knn_gpu`, and here `faiss.knn`.
    rows = np.random.default_rng(0).normal(size=(1500, 24)).astype(np.float32)
    expected = knn_graph_report(rows, 4, nlist=30, nprobe=4, threads=2)
    search = FaissSearch(nearest_on_cpu)
    calls = []

    def choose(n_dims):
        calls.append(n_dims)
        return search

    monkeypatch.setattr(backend, "choose_search", choose)
    found = knn_graph_report(rows, 4, nlist=30, nprobe=4, threads=2)
    assert len(calls) >= 3
    for name in ("indptr", "indices", "sq_distances"):
        assert getattr(found.graph, name).tobytes() == getattr(expected.graph, name).tobytes()


def test_the_cpu_searches_if_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choose_search.cache_clear()
    assert choose_search(16) is search_lists
    choose_search.cache_clear()


def test_nothing_is_projected_if_a_gpu_searches(monkeypatch):
    rows = (np.random.default_rng(0).normal(size=(600, 40)) @ np.ones((40, 300))).astype(np.float32)
    assert fit_projection(rows, 600, 10**9) is not None
    monkeypatch.setattr(backend, "choose_search", lambda n_dims: FaissSearch(nearest_on_cpu))
    assert fit_projection(rows, 600, 10**9) is None
