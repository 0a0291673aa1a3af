"""Bodies and the division of lists into partitions."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from d2prune.index.bodies import Body, plan_partitions


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=40).filter(any), st.integers(1, 5_000))
def test_partitions_are_consecutive_and_bounded(sizes, most):
    bounds = plan_partitions(np.array(sizes), 10, most)
    assert bounds[0] == 0 and bounds[-1] == len(sizes)
    assert all(low < high for low, high in itertools.pairwise(bounds))
    for low, high in itertools.pairwise(bounds):
        assert 10 * sum(sizes[low:high]) <= max(most, 10 * max(sizes))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 80), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32), st.data())
def test_a_body_is_each_list_as_codes_then_ids(n_rows, n_lists, n_dims, seed, data):
    rng = np.random.default_rng(seed)
    lists = rng.integers(0, n_lists, n_rows).astype(np.int32)
    codes = rng.integers(0, 256, (n_rows, 2 * n_dims)).astype(np.uint8)
    positions = np.sort(rng.choice(2**40, n_rows, replace=False))
    first = data.draw(st.integers(0, n_lists - 1))
    stop = data.draw(st.integers(first + 1, n_lists))
    sizes = np.bincount(lists, minlength=n_lists)[first:stop]
    body = Body(first, sizes, n_dims)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_rows), max_size=3)))
    for low, high in zip([0, *cuts], [*cuts, n_rows], strict=True):
        body.add(codes[low:high], lists[low:high], positions[low:high])
    assert body.is_full()
    expected = b"".join(
        codes[lists == number].tobytes() + positions[lists == number].astype("<i8").tobytes()
        for number in range(first, stop)
    )
    assert body.data.tobytes() == expected
    body.add(codes, lists, positions)
    assert body.is_full() == (sizes.sum() == 0)
    assert body.data.tobytes() == expected
