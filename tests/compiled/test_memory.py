"""Atomic operations and prefetching, called from compiled kernels."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load, prefetch, store, subtract


@kernel
def subtract_many(values, index, amount, times):
    for _ in range(times):
        subtract(values, index, amount)


@kernel
def move(values, source, destination):
    prefetch(values, source)
    prefetch(values, 10**9)
    store(values, destination, load(values, source))
    return subtract(values, source, 1)


def test_concurrent_subtractions_all_count():
    values = np.zeros(2, np.int64)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda amount: subtract_many(values, 1, amount, 100_000), [1, 2, 3, 4]))
    assert values.tolist() == [0, -1_000_000]


def test_load_store_and_subtract_use_the_given_index():
    values = np.array([5, 7, 9], np.int64)
    assert move(values, 2, 0) == 9
    assert values.tolist() == [9, 7, 8]
