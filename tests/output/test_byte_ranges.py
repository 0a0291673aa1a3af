"""Joined reads of byte ranges: the plan covers each sample once, and the bytes are those of single reads."""

import random

from hypothesis import given
from hypothesis import strategies as st

from d2prune import store
from d2prune.output import byte_ranges


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), max_size=20),
    st.integers(0, 60),
    st.integers(1, 200),
)
def test_plan_reads_covers_each_sample_once(steps, gap, block):
    offsets, sizes, position = [], [], 0
    for skip, size in steps:
        position += skip
        offsets.append(position)
        sizes.append(size)
        position += size
    reads = byte_ranges.plan_reads(offsets, sizes, gap, block)
    assert [i for read in reads for i in range(read.first, read.last)] == list(range(len(steps)))
    for read in reads:
        assert read.offset == offsets[read.first]
        assert read.offset + read.size == offsets[read.last - 1] + sizes[read.last - 1]
        assert read.size <= block or read.last - read.first == 1


def test_joined_reads_return_the_bytes_of_each_sample(tmp_path, s3):
    url = f"{s3.make_bucket('ahead')}/x.bin"
    data = random.Random(0).randbytes(300_000)
    store.write_bytes(url, data)
    starts = sorted(random.Random(1).sample(range(290_000), 200))
    sizes = [(start * 31) % 9_000 + 1 for start in starts]
    source = byte_ranges.ByteRanges(url, starts, sizes)
    for policy in (
        byte_ranges.ReadPolicy(0, 1, 3),
        byte_ranges.ReadPolicy(2_000, 20_000, 8),
        byte_ranges.ReadPolicy(10**6, 10**6, 1),
        None,
    ):
        got = [bytes(view) for view in byte_ranges.read_samples([source, source], policy)]
        assert got == [data[start : start + size] for start, size in zip(starts, sizes, strict=True)] * 2
