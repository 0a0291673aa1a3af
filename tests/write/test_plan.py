"""Assignment of kept samples to output tars."""

from hypothesis import given
from hypothesis import strategies as st

from d2prune.write.plan import assign


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(1, 9))
def test_tars_are_filled_in_order_without_gaps(kept, samples_per_shard):
    shards = assign(kept, samples_per_shard)
    flat = [(part, row) for shard in shards for part, start, stop in shard for row in range(start, stop)]
    assert flat == [(part, row) for part, count in enumerate(kept) for row in range(count)]
    counts = [sum(stop - start for _, start, stop in shard) for shard in shards]
    assert all(count == samples_per_shard for count in counts[:-1])
    assert all(start < stop for shard in shards for _, start, stop in shard)
