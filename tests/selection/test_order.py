"""Nodes come from the highest bucket down, each once, those whose value fell at their new place."""

import numpy as np
import pytest

from d2prune.d2 import order
from d2prune.d2.kernel import new_state
from d2prune.d2.order import N_BUCKETS, NOBODY, next_batch, sort_into_buckets


def bucket(value):
    return (1023 + 63) * 64 - (int(np.float64(value).view(np.int64)) >> 46)


def come(values, room, fall):
    """All nodes in the order they come, with their values then; `fall` may lower values after each batch."""
    n = len(values)
    value, head, link = new_state(n)
    value[:] = values
    queue, ends = np.empty(n, np.int32), np.empty(N_BUCKETS + 1, np.int64)
    queued = sort_into_buckets(value, head, 0, n, queue, ends)
    place, late, fill, chunks = order.new_line(queued)
    if not room:
        chunks = chunks[:0]
    batch, out = np.empty(16, np.int32), []
    while True:
        m, top = next_batch(batch, NOBODY, queue[:queued], ends, place, late, fill, chunks, value, link)
        assert top == NOBODY
        if m == 0:
            return out, value
        out += [(int(u), int(value[u])) for u in batch[:m]]
        fall(value)


@pytest.mark.parametrize("n", [0, 1, 17, 3000])
@pytest.mark.parametrize("room", [True, False])
def test_each_node_above_zero_comes_once(n, room):
    rng = np.random.default_rng(n)
    values = rng.integers(-(2**20), 2**40, n)

    def fall(value):
        some = rng.integers(0, n, 100)
        value[some] -= rng.integers(0, 2**38, 100)

    came, value = come(values, room, fall)
    nodes = [u for u, _ in came]
    assert len(set(nodes)) == len(nodes)
    # Those that did not come had fallen to zero or below before their turn.
    assert set(range(n)) - set(nodes) <= set(np.flatnonzero(value <= 0).tolist())
    buckets = [bucket(v) for _, v in came]
    if room:
        assert buckets == sorted(buckets)
    elif n == 3000:
        assert buckets != sorted(buckets)  # without room for the late ones they come before their time


def test_a_bucket_of_many_late_nodes_outgrows_its_chunk():
    n = 1000
    values = np.concatenate([np.full(1, 2**40), np.full(n - 1, 2**39)])

    def fall(value):
        value[value == 2**39] = 2**20

    came, _ = come(values, True, fall)
    # The first batch holds 16; what is queued then falls into one bucket, 15 to a chunk.
    assert len({u for u, _ in came}) == n
    assert sum(v == 2**20 for _, v in came) == n - 16
