"""Byte ranges of samples -> their bytes: neighbouring ranges joined into few reads, a bounded number ahead.

A read costs a fixed time (a request's round trip, a system call) and a time per byte. Two ranges are joined where
reading the gap between them costs less than another read. So where most samples of a shard are wanted it is one pass
over the shard in blocks, and where few are it is a few ranged reads, with nothing to switch.
"""

import collections
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline import storage
from pipeline.errors import UserError


@dataclass(frozen=True)
class Costs:
    """How to read from one kind of storage.

    Attributes:
        gap: bytes worth reading to save one read.
        block: bytes of one joined read, unless a single sample is larger.
        ahead: reads in flight; 0 reads in the caller's thread.
    """

    gap: int
    block: int
    ahead: int


LOCAL = Costs(gap=16 * 2**10, block=2**20, ahead=0)
"""Page cache or a local disk, which reads ahead by itself: a read costs about 5 microseconds, 16 KiB as much.

Blocks are small enough for the allocator to use their memory again; of larger ones every page is made anew."""

REMOTE = Costs(gap=1 * 2**20, block=8 * 2**20, ahead=8)
"""An object store: 10-50 ms a request and 50-100 MB/s a stream, and requests overlap. At most 64 MiB are in flight."""


@dataclass(frozen=True)
class Source:
    """Samples wanted of one object: offsets ascending (repeats allowed), sizes in bytes."""

    url: str
    offsets: Sequence[int]
    sizes: Sequence[int]


@dataclass(frozen=True)
class Read:
    """One joined read: `size` bytes at `offset` hold samples [first, last) of the source."""

    offset: int
    size: int
    first: int
    last: int


def plan_reads(offsets: Sequence[int], sizes: Sequence[int], gap: int, block: int) -> list[Read]:
    """Join ranges whose gap is at most `gap` into reads of at most `block` bytes.

    Args:
        offsets: first byte of each sample, ascending.
        sizes: bytes of each.
        gap: largest gap to read through, bytes.
        block: largest read, bytes; a single larger sample is one read.

    Returns:
        Reads that together cover every sample once, in order.

    Raises:
        ValueError: offsets descend.
    """
    reads: list[Read] = []
    start = end = first = 0
    for i, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        if i and offset < offsets[i - 1]:
            raise ValueError(f"offsets must ascend, got {offsets[i - 1]} before {offset}")
        stop = max(end, offset + size) if i > first else offset + size
        if i > first and (offset - end > gap or stop - start > block):
            reads.append(Read(start, end - start, first, i))
            first, stop = i, offset + size
        if i == first:
            start = offset
        end = stop
    if len(offsets) > first:
        reads.append(Read(start, end - start, first, len(offsets)))
    return reads


def read_samples(sources: Iterable[Source], costs: Costs | None = None) -> Iterator[memoryview]:
    """The bytes of every sample of every source, in order.

    Args:
        sources: read one after the other; reads ahead cross from one to the next.
        costs: default by the kind of storage of each source.

    Yields:
        One view per sample; it stays valid as long as it is held, and so does the block under it.

    Raises:
        UserError: a source is gone.
        InfrastructureError: it could not be read, or is shorter than its ranges.
    """
    for ahead, group in _grouped(sources, costs):
        yield from _read_here(group) if ahead == 0 else _read_ahead(group, ahead)


def _grouped(sources: Iterable[Source], costs: Costs | None) -> Iterator[tuple[int, list[tuple[Source, Costs]]]]:
    """Runs of neighbouring sources that are read the same way, with their costs."""
    group: list[tuple[Source, Costs]] = []
    for source in sources:
        cost = costs or (LOCAL if storage.is_local(source.url) else REMOTE)
        if group and group[-1][1].ahead != cost.ahead:
            yield group[-1][1].ahead, group
            group = []
        group.append((source, cost))
    if group:
        yield group[-1][1].ahead, group


def _read_here(group: Sequence[tuple[Source, Costs]]) -> Iterator[memoryview]:
    for source, costs in group:
        with _present(source.url), storage.ranged_reader(source.url) as read:
            for planned in plan_reads(source.offsets, source.sizes, costs.gap, costs.block):
                yield from _views(source, planned, read(planned.offset, planned.size))


def _read_ahead(group: Sequence[tuple[Source, Costs]], ahead: int) -> Iterator[memoryview]:
    waiting: collections.deque[tuple[Source, Read, Future[bytes]]] = collections.deque()

    def oldest() -> Iterator[memoryview]:
        source, planned, future = waiting.popleft()
        with _present(source.url):
            data = future.result()
        return _views(source, planned, data)

    pool = ThreadPoolExecutor(ahead, thread_name_prefix="d2prune-fetch")
    try:
        for source, costs in group:
            for planned in plan_reads(source.offsets, source.sizes, costs.gap, costs.block):
                if len(waiting) == ahead:
                    yield from oldest()
                future = pool.submit(storage.read_range, source.url, planned.offset, planned.size)
                waiting.append((source, planned, future))
        while waiting:
            yield from oldest()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _views(source: Source, planned: Read, data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for i in range(planned.first, planned.last):
        start = source.offsets[i] - planned.offset
        yield view[start : start + source.sizes[i]]


@contextlib.contextmanager
def _present(url: str) -> Iterator[None]:
    """A missing source is the user's: no retry brings it back."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{storage.redact(url)}: was in the pool and is gone; samples are copied from it") from error
