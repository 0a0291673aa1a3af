"""The order in which the reverse pass visits nodes: roughly from the highest value down.

The order affects speed, never the result. Nodes are sorted into 4,096 logarithmic buckets; a node
whose value fell in the meantime moves to its new bucket. Most visits then finalise their node: on
a graph of 4 million nodes there are 0.68 visits per node, and 0.55 of a visit per node succeeds.
Nodes at or below zero are never visited.

Index legend as in kernel.py: n own nodes, g ghosts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load, prefetch
from d2prune.d2.waiting_lists import FINAL, NO_NODE

# 64 per power of two, for values from 1 to 2**63 - 1; bucket 0 is the highest.
N_BUCKETS = 4096
CHUNK = 16  # int32 in a cache line
_NO_CHUNK = -1
_AHEAD = 8
# Entries of `cursor`.
_TAKEN, _BUCKET, _USED, _FREE = range(4)

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]


@kernel(inline="always")
def _bucket(value: int) -> int:
    """Return the bucket of a value > 0, high values first.

    Derived from the exponent and the upper 6 bits of the mantissa of its float64.
    """
    return (1023 + 63) * 64 - (np.float64(value).view(np.int64) >> 46)  # type: ignore[return-value]


@kernel
def sort_into_buckets(value: _Int64s, head: _Int32s, lo: int, hi: int, queue: _Int32s, ends: _Int64s) -> int:
    """Counting sort by bucket of the unfinalised nodes lo <= i < hi with a value > 0.

    Within a bucket, nodes are in ascending order of index.

    Args:
        value: int64 [n+g]; each entry is read once, as another thread may be lowering it.
        head: int32 [n+g].
        lo: first node.
        hi: one past the last node.
        queue: int32 [hi - lo], written.
        ends: int64 [N_BUCKETS + 1], written: where each bucket ends in the queue.

    Returns:
        Number of nodes queued.
    """
    ends[:] = 0
    bucket_of = np.full(hi - lo, N_BUCKETS, np.uint16)
    for i in range(lo, hi):
        x = load(value, i)
        if x > 0 and head[i] != FINAL:
            bucket_of[i - lo] = _bucket(x)
            ends[bucket_of[i - lo] + 1] += 1
    for b in range(N_BUCKETS):
        ends[b + 1] += ends[b]
    total = int(ends[N_BUCKETS])
    for i in range(lo, hi):
        b = bucket_of[i - lo]
        if b < N_BUCKETS:
            queue[ends[b]] = i
            ends[b] += 1
    return total


@kernel(inline="always")
def new_cursor(n_queued: int) -> tuple[_Int64s, _Int32s, _Int32s, _Int32s]:
    """(cursor, late, fill, chunks) of `next_batch`, at the start of a queue of `n_queued` nodes."""
    cursor = np.zeros(4, np.int64)
    cursor[_BUCKET] = 0 if n_queued > 0 else N_BUCKETS
    cursor[_FREE] = _NO_CHUNK
    # Two bytes per queued node. When the chunks run out, nodes are visited too early, which costs
    # only speed.
    n_chunks = min(n_queued, n_queued // (2 * CHUNK) + N_BUCKETS)
    late, fill = np.full(N_BUCKETS + 2, _NO_CHUNK, np.int32), np.zeros(N_BUCKETS + 2, np.int32)
    return cursor, late, fill, np.empty(n_chunks * CHUNK, np.int32)


@kernel(inline="always")
def next_batch(
    batch: _Int32s,
    top: int,
    queue: _Int32s,
    ends: _Int64s,
    cursor: _Int64s,
    late: _Int32s,
    fill: _Int32s,
    chunks: _Int32s,
    value: _Int64s,
    link: _Int32s,
) -> tuple[int, int]:
    """Fill `batch` with nodes to visit: the stack first, then the queue from the highest bucket down.

    A node whose value fell below its bucket becomes a late node of its new bucket and is returned
    when that bucket is reached. Late nodes are stored in chunks of one cache line, linked through
    their first entry. A list through the nodes' own records would cost one dependent cache miss per
    node: half of the running time on a large pool in random order.

    Args:
        batch: int32 [B], written.
        top: top of the stack of nodes to visit.
        queue: int32 [q].
        ends: int64 [N_BUCKETS + 1], of the queue.
        cursor: int64 [4], updated: queue entries taken, current bucket, chunks used, first chunk of
            the free list.
        late: int32 [N_BUCKETS + 2], updated: the chunk being filled for each bucket, or -1.
        fill: int32 [N_BUCKETS + 2], updated: number of nodes in that chunk.
        chunks: int32 [C * CHUNK], updated.
        value: int64 [n+g].
        link: int32 [n+g].

    Returns:
        (nodes in the batch, new top of the stack).
    """
    m = 0
    while m < len(batch) and top != NO_NODE:
        batch[m] = top
        top = link[top]
        m += 1
    bucket, taken = cursor[_BUCKET], cursor[_TAKEN]
    while m < len(batch) and bucket < N_BUCKETS:
        chunk = late[bucket]
        if chunk != _NO_CHUNK:
            if fill[bucket] == 0:
                late[bucket] = chunks[chunk * CHUNK]
                fill[bucket] = CHUNK - 1
                chunks[chunk * CHUNK] = cursor[_FREE]
                cursor[_FREE] = chunk
                _prefetch_chunk(late[bucket], chunks, value)
                continue
            u = chunks[chunk * CHUNK + fill[bucket]]
            fill[bucket] -= 1
        elif taken < ends[bucket]:
            u = queue[taken]
            taken += 1
            prefetch(value, queue[min(taken + _AHEAD, len(queue) - 1)])
        else:
            bucket += 1
            if late[bucket] != _NO_CHUNK:
                _prefetch_chunk(late[bucket], chunks, value)
            if late[bucket + 1] != _NO_CHUNK:
                for k in range(1, CHUNK):
                    prefetch(value, chunks[late[bucket + 1] * CHUNK + k])
            continue
        x = load(value, u)
        if x <= 0:
            continue
        if _bucket(x) > bucket and _add_late_node(u, _bucket(x), cursor, late, fill, chunks):
            continue
        batch[m] = u
        m += 1
    cursor[_BUCKET], cursor[_TAKEN] = bucket, taken
    return m, top


@kernel(inline="always")
def _prefetch_chunk(chunk: int, chunks: _Int32s, value: _Int64s) -> None:
    """Prefetch what is read after `chunk`: the next chunk's nodes, and the chunk after that."""
    if chunk != _NO_CHUNK:
        following = chunks[chunk * CHUNK]
        if following != _NO_CHUNK:
            for k in range(1, CHUNK):
                prefetch(value, chunks[following * CHUNK + k])
            prefetch(chunks, chunks[following * CHUNK] * CHUNK)


@kernel(inline="always")
def _add_late_node(
    u: int, bucket: int, cursor: _Int64s, late: _Int32s, fill: _Int32s, chunks: _Int32s
) -> bool:
    """Store u as a late node of `bucket`; False if all chunks are in use."""
    if late[bucket] == _NO_CHUNK or fill[bucket] == CHUNK - 1:
        chunk = cursor[_FREE]
        if chunk != _NO_CHUNK:
            cursor[_FREE] = chunks[chunk * CHUNK]
        elif cursor[_USED] * CHUNK < len(chunks):
            chunk = cursor[_USED]
            cursor[_USED] += 1
        else:
            return False
        chunks[chunk * CHUNK] = late[bucket]
        late[bucket], fill[bucket] = chunk, 0
    fill[bucket] += 1
    chunks[late[bucket] * CHUNK + fill[bucket]] = u
    return True
