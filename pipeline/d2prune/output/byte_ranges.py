"""Read the byte ranges of many samples into the caller's memory, block by block, in order.

A read from an object store costs one round trip plus a time per byte. Two ranges are joined where
reading the gap between them costs less than another request. A shard of which most samples are
wanted is therefore read in one pass, and one of which few are wanted in a few ranged reads; there
is no mode to choose. A bounded number of reads is in flight. Local files need no joining: each
range is read straight into the block, adjacent ranges in one system call.
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from d2prune import store
from d2prune.errors import UserError

BLOCK = 2**20
"""Bytes of samples in a block, unless a single sample is larger.

Large enough that the work per block is cheap, small enough that a block stays in the CPU cache
until it is hashed and written."""

Allocate = Callable[[int], memoryview]
"""`allocate(size)` returns `size` bytes of writable memory."""


@dataclass(frozen=True)
class ReadPolicy:
    """How ranges are joined and read from an object store.

    Attributes:
        max_gap: bytes worth reading to save one request.
        max_read: bytes of one joined read, unless a single sample is larger.
        in_flight: concurrent reads.
    """

    max_gap: int
    max_read: int
    in_flight: int


REMOTE = ReadPolicy(max_gap=1 * 2**20, max_read=8 * 2**20, in_flight=8)
"""For requests of 10-50 ms and streams of 50-100 MB/s. At most 64 MiB are in flight."""


@dataclass(frozen=True)
class ByteRanges:
    """The samples wanted from one object.

    Attributes:
        url: the object.
        offsets: first byte of each sample, ascending; repeats are allowed.
        sizes: bytes of each sample.
    """

    url: str
    offsets: Sequence[int]
    sizes: Sequence[int]


@dataclass(frozen=True)
class JoinedRead:
    """One read: `size` bytes at `offset` hold samples [first, last) of the object."""

    offset: int
    size: int
    first: int
    last: int


def plan_reads(offsets: Sequence[int], sizes: Sequence[int], max_gap: int, max_read: int) -> list[JoinedRead]:
    """Join ranges whose gap is at most `max_gap` into reads of at most `max_read` bytes.

    Args:
        offsets: first byte of each sample, ascending.
        sizes: bytes of each sample.
        max_gap: largest gap to read through, bytes.
        max_read: largest read, bytes; a larger sample becomes one read.

    Returns:
        Reads that together cover every sample once, in order.

    Raises:
        ValueError: the offsets are not ascending.
    """
    reads: list[JoinedRead] = []
    start = end = first = 0
    for i, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        if i and offset < offsets[i - 1]:
            raise ValueError(f"offsets: found {offset} after {offsets[i - 1]}; expected ascending offsets")
        stop = max(end, offset + size) if i > first else offset + size
        if i > first and (offset - end > max_gap or stop - start > max_read):
            reads.append(JoinedRead(start, end - start, first, i))
            first, stop = i, offset + size
        if i == first:
            start = offset
        end = stop
    if len(offsets) > first:
        reads.append(JoinedRead(start, end - start, first, len(offsets)))
    return reads


@dataclass(frozen=True)
class Block:
    """Samples [first, last) of one object, side by side.

    Attributes:
        source: index of the `ByteRanges` the samples belong to, from 0.
        first: first sample, counted within those ranges.
        last: end of the samples, exclusive.
        data: their bytes, in memory from `Allocate`.
    """

    source: int
    first: int
    last: int
    data: memoryview


def read_blocks(
    sources: Iterable[ByteRanges], allocate: Allocate, policy: ReadPolicy | None = None
) -> Iterator[Block]:
    """Read every sample of every source, in order.

    Args:
        sources: read one after the other; prefetched reads cross from one source to the next.
        allocate: provides the memory of a block; called immediately before the block is filled.
        policy: default: `REMOTE` for object stores, direct reads for local files.

    Raises:
        UserError: a source no longer exists.
        InfrastructureError: a source could not be read, or is shorter than its ranges.
    """
    by_location = itertools.groupby(
        enumerate(sources), lambda item: policy is None and store.is_local(item[1].url)
    )
    for is_local, group in by_location:
        yield from (
            _read_local(group, allocate) if is_local else _read_remote(group, allocate, policy or REMOTE)
        )


def read_samples(sources: Iterable[ByteRanges], policy: ReadPolicy | None = None) -> Iterator[memoryview]:
    """Read as `read_blocks` does and yield one view per sample.

    A view keeps the whole block it belongs to in memory.
    """
    seen: list[ByteRanges] = []

    def remember_sources() -> Iterator[ByteRanges]:
        for source in sources:
            seen.append(source)
            yield source

    for block in read_blocks(remember_sources(), lambda size: memoryview(bytearray(size)), policy):
        start = 0
        for size in seen[block.source].sizes[block.first : block.last]:
            yield block.data[start : start + size]
            start += size


def _split_into_blocks(sizes: Sequence[int], first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Split samples [first, last) into blocks; yields (first, last, bytes)."""
    start, total = first, 0
    for i in range(first, last):
        if i > start and total + sizes[i] > BLOCK:
            yield start, i, total
            start, total = i, 0
        total += sizes[i]
    if start < last:
        yield start, last, total


def _read_local(sources: Iterable[tuple[int, ByteRanges]], allocate: Allocate) -> Iterator[Block]:
    for number, source in sources:
        offsets, sizes = source.offsets, source.sizes
        with _missing_source_as_user_error(source.url), store.local_reader(source.url) as fill:
            for first, last, total in _split_into_blocks(sizes, 0, len(sizes)):
                data = allocate(total)
                start = end = 0
                for i in range(first, last):
                    end += sizes[i]
                    if i + 1 == last or offsets[i + 1] != offsets[i] + sizes[i]:
                        fill(offsets[i] + sizes[i] - (end - start), data[start:end])
                        start = end
                yield Block(number, first, last, data)


def _read_remote(
    sources: Iterable[tuple[int, ByteRanges]], allocate: Allocate, policy: ReadPolicy
) -> Iterator[Block]:
    in_flight: collections.deque[tuple[int, ByteRanges, JoinedRead, Future[bytes]]] = collections.deque()

    def yield_oldest() -> Iterator[Block]:
        number, source, planned, future = in_flight.popleft()
        with _missing_source_as_user_error(source.url):
            read = memoryview(future.result())
        for first, last, total in _split_into_blocks(source.sizes, planned.first, planned.last):
            data = allocate(total)
            end = 0
            for i in range(first, last):
                size, start = source.sizes[i], source.offsets[i] - planned.offset
                data[end : end + size] = read[start : start + size]
                end += size
            yield Block(number, first, last, data)

    pool = ThreadPoolExecutor(policy.in_flight, thread_name_prefix="d2prune-fetch")
    try:
        for number, source in sources:
            for planned in plan_reads(source.offsets, source.sizes, policy.max_gap, policy.max_read):
                if len(in_flight) == policy.in_flight:
                    yield from yield_oldest()
                future = pool.submit(store.read_range, source.url, planned.offset, planned.size)
                in_flight.append((number, source, planned, future))
        while in_flight:
            yield from yield_oldest()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _missing_source_as_user_error(url: str) -> Iterator[None]:
    """Turn a missing source into a `UserError`: a retry would not bring the object back."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{store.redact(url)}: no longer exists; it was in the pool, and its samples are copied from it"
        ) from error
