"""Byte ranges of samples -> their bytes side by side in the caller's memory, block by block, in order.

A read of an object store costs a fixed time (a request's round trip) and a time per byte. Two
ranges are joined where reading the gap between them costs less than another read. So where most
samples of a shard are wanted it is one pass over the shard, and where few are it is a few ranged
reads, with nothing to switch. A bounded number of reads is under way ahead. Of a local file ranges
go straight to where they are wanted, neighbours with one system call.
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
"""Bytes of samples in a block, unless a single sample is larger: enough to make a block's handling cheap, few enough to
stay in the cache until they are hashed and written."""

Room = Callable[[int], memoryview]
"""`room(size)`: `size` bytes of writable memory that the caller provides."""


@dataclass(frozen=True)
class Costs:
    """How to read from an object store.

    Attributes:
        gap: bytes worth reading to save one read.
        block: bytes of one joined read, unless a single sample is larger.
        ahead: reads in flight.
    """

    gap: int
    block: int
    ahead: int


REMOTE = Costs(gap=1 * 2**20, block=8 * 2**20, ahead=8)
"""10-50 ms a request and 50-100 MB/s a stream, and requests overlap. At most 64 MiB are in flight."""


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


@dataclass(frozen=True)
class Block:
    """Samples [first, last) of a source, side by side.

    Attributes:
        source: number of the source, counted from 0.
        first: of its samples.
        last: of its samples.
        data: their bytes, in memory from `Room`.
    """

    source: int
    first: int
    last: int
    data: memoryview


def read_blocks(sources: Iterable[Source], room: Room, costs: Costs | None = None) -> Iterator[Block]:
    """The bytes of every sample of every source, in order.

    Args:
        sources: read one after the other; reads ahead cross from one to the next.
        room: gives memory for a block; asked right before the block is filled.
        costs: default `REMOTE`, or for local files reads without detours.

    Raises:
        UserError: a source is gone.
        InfrastructureError: it could not be read, or is shorter than its ranges.
    """
    ways = itertools.groupby(enumerate(sources), lambda item: costs is None and store.is_local(item[1].url))
    for is_local, group in ways:
        yield from _read_local(group, room) if is_local else _read_ahead(group, room, costs or REMOTE)


def read_samples(sources: Iterable[Source], costs: Costs | None = None) -> Iterator[memoryview]:
    """As `read_blocks`, a view per sample; it stays valid as long as it is held, and so does the block under it."""
    seen: list[Source] = []

    def noted() -> Iterator[Source]:
        for source in sources:
            seen.append(source)
            yield source

    for block in read_blocks(noted(), lambda size: memoryview(bytearray(size)), costs):
        start = 0
        for size in seen[block.source].sizes[block.first : block.last]:
            yield block.data[start : start + size]
            start += size


def _blocks(sizes: Sequence[int], first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Cuts samples [first, last) into blocks: first, last, bytes."""
    start, total = first, 0
    for i in range(first, last):
        if i > start and total + sizes[i] > BLOCK:
            yield start, i, total
            start, total = i, 0
        total += sizes[i]
    if start < last:
        yield start, last, total


def _read_local(sources: Iterable[tuple[int, Source]], room: Room) -> Iterator[Block]:
    for number, source in sources:
        offsets, sizes = source.offsets, source.sizes
        with _present(source.url), store.local_reader(source.url) as fill:
            for first, last, total in _blocks(sizes, 0, len(sizes)):
                data = room(total)
                start = end = 0
                for i in range(first, last):
                    end += sizes[i]
                    if i + 1 == last or offsets[i + 1] != offsets[i] + sizes[i]:
                        fill(offsets[i] + sizes[i] - (end - start), data[start:end])
                        start = end
                yield Block(number, first, last, data)


def _read_ahead(sources: Iterable[tuple[int, Source]], room: Room, costs: Costs) -> Iterator[Block]:
    waiting: collections.deque[tuple[int, Source, Read, Future[bytes]]] = collections.deque()

    def oldest() -> Iterator[Block]:
        number, source, planned, future = waiting.popleft()
        with _present(source.url):
            read = memoryview(future.result())
        for first, last, total in _blocks(source.sizes, planned.first, planned.last):
            data = room(total)
            end = 0
            for i in range(first, last):
                size, at = source.sizes[i], source.offsets[i] - planned.offset
                data[end : end + size] = read[at : at + size]
                end += size
            yield Block(number, first, last, data)

    pool = ThreadPoolExecutor(costs.ahead, thread_name_prefix="d2prune-fetch")
    try:
        for number, source in sources:
            for planned in plan_reads(source.offsets, source.sizes, costs.gap, costs.block):
                if len(waiting) == costs.ahead:
                    yield from oldest()
                future = pool.submit(store.read_range, source.url, planned.offset, planned.size)
                waiting.append((number, source, planned, future))
        while waiting:
            yield from oldest()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _present(url: str) -> Iterator[None]:
    """A missing source is the user's: no retry brings it back."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{store.redact(url)}: was in the pool and is gone; samples are copied from it"
        ) from error
