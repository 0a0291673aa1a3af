"""Work on ranges: every item once, and torch's threads as before, if torch is used at all."""

import sys

import numpy as np
import pytest
import torch

from d2prune.compiled.threads import parallel_ranges


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("n_items", "chunk"), [(0, 4), (1, 4), (10, 4), (12, 4), (5, 100)])
def test_every_item_is_in_one_range(n_items, chunk, threads):
    counts = np.zeros(n_items, int)
    before = torch.get_num_threads()

    def work(start, stop):
        assert torch.get_num_threads() == 1 and 0 < stop - start <= chunk
        counts[start:stop] += 1

    parallel_ranges(work, n_items, threads, chunk)
    assert counts.tolist() == [1] * n_items
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_torch_is_not_loaded_where_it_is_not_used(monkeypatch, threads):
    monkeypatch.delitem(sys.modules, "torch")
    ranges = []
    parallel_ranges(lambda *one: ranges.append(one), 10, threads, 5)
    assert sum(stop - start for start, stop in ranges) == 10
    assert "torch" not in sys.modules


def test_an_error_in_a_range_is_raised():
    def work(start, stop):
        raise ValueError("in a range")

    with pytest.raises(ValueError, match="in a range"):
        parallel_ranges(work, 10, 3, 2)
