"""The queue returns each node once, from the highest bucket down, at its current value."""

import numpy as np
import pytest

from d2prune.d2.bucket_queue import N_BUCKETS, new_cursor, next_batch, sort_into_buckets
from d2prune.d2.kernel import new_state
from d2prune.d2.waiting_lists import NO_NODE


def bucket(value):
    return (1023 + 63) * 64 - (int(np.float64(value).view(np.int64)) >> 46)


def visit_all(values, has_chunks, fall):
    """(node, value) by visit, and the values at the end; `fall` may lower values after a batch."""
    n = len(values)
    value, head, link = new_state(n)
    value[:] = values
    queue, ends = np.empty(n, np.int32), np.empty(N_BUCKETS + 1, np.int64)
    queued = sort_into_buckets(value, head, 0, n, queue, ends)
    cursor, late, fill, chunks = new_cursor(queued)
    if not has_chunks:
        chunks = chunks[:0]
    batch, out = np.empty(16, np.int32), []
    while True:
        m, top = next_batch(batch, NO_NODE, queue[:queued], ends, cursor, late, fill, chunks, value, link)
        assert top == NO_NODE
        if m == 0:
            return out, value
        out += [(int(u), int(value[u])) for u in batch[:m]]
        fall(value)


@pytest.mark.parametrize("n", [0, 1, 17, 3000])
@pytest.mark.parametrize("has_chunks", [True, False])
def test_each_node_above_zero_is_visited_once(n, has_chunks):
    rng = np.random.default_rng(n)
    values = rng.integers(-(2**20), 2**40, n)

    def fall(value):
        some = rng.integers(0, n, 100)
        value[some] -= rng.integers(0, 2**38, 100)

    visits, value = visit_all(values, has_chunks, fall)
    nodes = [u for u, _ in visits]
    assert len(set(nodes)) == len(nodes)
    # The nodes that were not visited had fallen to zero or below.
    assert set(range(n)) - set(nodes) <= set(np.flatnonzero(value <= 0).tolist())
    buckets = [bucket(v) for _, v in visits]
    if has_chunks:
        assert buckets == sorted(buckets)
    elif n == 3000:
        assert buckets != sorted(buckets)  # without chunks, late nodes are visited too early


def test_bucket_of_late_nodes_may_span_many_chunks():
    n = 1000
    values = np.concatenate([np.full(1, 2**40), np.full(n - 1, 2**39)])

    def fall(value):
        value[value == 2**39] = 2**20

    visits, _ = visit_all(values, True, fall)
    # The first batch holds 16 nodes; all others then fall into one bucket, 15 to a chunk.
    assert len({u for u, _ in visits}) == n
    assert sum(v == 2**20 for _, v in visits) == n - 16
