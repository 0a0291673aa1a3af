"""Canonical positions to (part, row) and back, against a list of pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from d2prune.parts.spans import Spans

ROWS = st.lists(st.integers(0, 5), max_size=8)


@given(ROWS, st.randoms(use_true_random=False))
def test_every_position_is_found(rows, random):
    spans = Spans.of_rows(rows)
    pairs = [(part, row) for part, count in enumerate(rows) for row in range(count)]
    assert len(spans) == len(pairs) and spans.n_parts == len(rows)
    positions = [random.randrange(len(pairs)) for _ in range(10)] if pairs else []
    part_N, row_N = spans.locate(np.array(positions, np.int64))
    assert list(zip(part_N.tolist(), row_N.tolist(), strict=True)) == [pairs[i] for i in positions]
    for part, count in enumerate(rows):
        start, stop = spans.bounds(part)
        assert stop - start == count


@given(ROWS, st.randoms(use_true_random=False))
def test_positions_by_part_are_each_given_once(rows, random):
    spans = Spans.of_rows(rows)
    n = sum(rows)
    positions = np.array([random.randrange(n) for _ in range(10)] if n else [], np.int64)
    seen = []
    for part, index_M, row_M in spans.by_part(positions):
        assert (spans.starts[part] + row_M == positions[index_M]).all()
        seen += index_M.tolist()
    assert sorted(seen) == list(range(len(positions)))
