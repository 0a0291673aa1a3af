"""Who comes before whom, and the order in which the kernel looks at nodes.

The first is the definition of the algorithm; the second is only a matter of speed. Looking at nodes
roughly from the highest value down (4,096 logarithmic buckets, a node whose value fell meanwhile
moves to its new bucket) makes most looks succeed: 0.68 looks a node on a graph of 4 million nodes,
of which 0.55 finalise it. None is spent on nodes at or below zero.

Legend as in kernel.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.compiled.memory import load, prefetch

NOBODY = -1  # end of a list
DONE = -2  # head of a node that is final and whose messages are sent

# 64 per power of two, for values from 1 to 2**63 - 1; bucket 0 is the highest.
N_BUCKETS = 4096
CHUNK = 16  # int32 in a cache line
_AHEAD = 8
_TAKEN, _BUCKET, _USED, _SPARE = range(4)

_Int64s = NDArray[np.int64]
_Int32s = NDArray[np.int32]


@kernel(inline="always")
def beats(value_u: int, u: int, value_v: int, v: int, position: _Int64s) -> bool:
    """Whether u is picked before v at these values: the higher, and of equals the earlier canonical position.

    `position` is int64 [n+g]; empty: the indices are the positions.
    """
    if value_u != value_v:
        return bool(value_u > value_v)
    if len(position) == 0:
        return u < v
    return bool(position[u] < position[v])


@kernel(inline="always")
def blocks(value_u: int, u: int, value_v: int, v: int, position: _Int64s) -> bool:
    """Whether an unfinalised u may still change v: it beats v and is positive, as t <= 0 sends nothing."""
    return value_u > 0 and beats(value_u, u, value_v, v, position)


@kernel(inline="always")
def _bucket(value: int) -> int:
    """Bucket of a value > 0: exponent and upper 6 bits of the mantissa of its float64, high values first."""
    return (1023 + 63) * 64 - (np.float64(value).view(np.int64) >> 46)  # type: ignore[return-value]


@kernel
def sort_into_buckets(value: _Int64s, head: _Int32s, lo: int, hi: int, queue: _Int32s, ends: _Int64s) -> int:
    """Counting sort of the unfinalised nodes lo <= i < hi with a value > 0 by bucket, ascending index within.

    Args:
        value: int64 [n+g]; each is read once, as another thread may be lowering it.
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
        if x > 0 and head[i] != DONE:
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
def new_line(n_queued: int) -> tuple[_Int64s, _Int32s, _Int32s, _Int32s]:
    """(place, late, fill, chunks) of `next_batch`, at the start of a queue of `n_queued` nodes."""
    place = np.zeros(4, np.int64)
    place[_BUCKET] = 0 if n_queued > 0 else N_BUCKETS
    place[_SPARE] = NOBODY
    # Two bytes a node: should they not suffice, nodes are looked at before their time, which costs
    # only speed.
    n_chunks = min(n_queued, n_queued // (2 * CHUNK) + N_BUCKETS)
    late, fill = np.full(N_BUCKETS + 2, NOBODY, np.int32), np.zeros(N_BUCKETS + 2, np.int32)
    return place, late, fill, np.empty(n_chunks * CHUNK, np.int32)


@kernel(inline="always")
def next_batch(
    batch: _Int32s,
    top: int,
    queue: _Int32s,
    ends: _Int64s,
    place: _Int64s,
    late: _Int32s,
    fill: _Int32s,
    chunks: _Int32s,
    value: _Int64s,
    link: _Int32s,
) -> tuple[int, int]:
    """Fill `batch` with nodes to look at: first the woken ones, then the queue from the highest bucket down.

    A node whose value fell below its bucket goes to the late nodes of the bucket where it now
    belongs, and comes when that is reached. They lie in chunks of a cache line each, chained by
    their first entry: in a chain through the nodes' own records each would be found only by a cache
    miss on the one before (half of the time of a large pool in random order).

    Args:
        batch: int32 [B], written.
        top: top of the stack of woken nodes.
        queue: int32 [q].
        ends: int64 [N_BUCKETS + 1], of the queue.
        place: int64 [4]: queue entries taken, current bucket, chunks used, first of the free ones
            among these.
        late: int32 [N_BUCKETS + 2], the chunk of each bucket that is being filled, or NOBODY.
        fill: int32 [N_BUCKETS + 2], how many nodes it holds.
        chunks: int32 [C * CHUNK].
        value: int64 [n+g].
        link: int32 [n+g].

    Returns:
        (nodes in the batch, new top of the stack).
    """
    m = 0
    while m < len(batch) and top != NOBODY:
        batch[m] = top
        top = link[top]
        m += 1
    bucket, taken = place[_BUCKET], place[_TAKEN]
    while m < len(batch) and bucket < N_BUCKETS:
        chunk = late[bucket]
        if chunk != NOBODY:
            if fill[bucket] == 0:
                late[bucket] = chunks[chunk * CHUNK]
                fill[bucket] = CHUNK - 1
                chunks[chunk * CHUNK] = place[_SPARE]
                place[_SPARE] = chunk
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
            if late[bucket] != NOBODY:
                _prefetch_chunk(late[bucket], chunks, value)
            if late[bucket + 1] != NOBODY:
                for k in range(1, CHUNK):
                    prefetch(value, chunks[late[bucket + 1] * CHUNK + k])
            continue
        x = load(value, u)
        if x <= 0:
            continue
        if _bucket(x) > bucket and _put_late(u, _bucket(x), place, late, fill, chunks):
            continue
        batch[m] = u
        m += 1
    place[_BUCKET], place[_TAKEN] = bucket, taken
    return m, top


@kernel(inline="always")
def _prefetch_chunk(chunk: int, chunks: _Int32s, value: _Int64s) -> None:
    """Chunk is the next to be read: ask for the nodes of the one after it, and for the line of the one after that."""
    if chunk != NOBODY:
        following = chunks[chunk * CHUNK]
        if following != NOBODY:
            for k in range(1, CHUNK):
                prefetch(value, chunks[following * CHUNK + k])
            prefetch(chunks, chunks[following * CHUNK] * CHUNK)


@kernel(inline="always")
def _put_late(u: int, bucket: int, place: _Int64s, late: _Int32s, fill: _Int32s, chunks: _Int32s) -> bool:
    """Note u for a later bucket; False where there is no room."""
    if late[bucket] == NOBODY or fill[bucket] == CHUNK - 1:
        chunk = place[_SPARE]
        if chunk != NOBODY:
            place[_SPARE] = chunks[chunk * CHUNK]
        elif place[_USED] * CHUNK < len(chunks):
            chunk = place[_USED]
            place[_USED] += 1
        else:
            return False
        chunks[chunk * CHUNK] = late[bucket]
        late[bucket], fill[bucket] = chunk, 0
    fill[bucket] += 1
    chunks[late[bucket] * CHUNK + fill[bucket]] = u
    return True


@kernel(inline="always")
def wake_released(
    v: int, value_v: int, value: _Int64s, position: _Int64s, head: _Int32s, link: _Int32s, top: int
) -> int:
    """The value of v fell: move those who wait on v and are not blocked by it any more to the stack; the new top."""
    kept = NOBODY
    w = head[v]
    while w != NOBODY:
        following = link[w]
        if blocks(value_v, v, load(value, w), w, position):
            link[w] = kept
            kept = w
        else:
            link[w] = top
            top = w
        w = following
    head[v] = kept
    return top


@kernel(inline="always")
def wake_all(w: int, link: _Int32s, top: int) -> int:
    """Move a whole waiting list, w its first, to the stack; the new top."""
    while w != NOBODY:
        following = link[w]
        link[w] = top
        top = w
        w = following
    return top
