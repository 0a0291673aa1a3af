"""Byte-pair encoding of long words in O(n log n); open_clip's own takes a second per kB."""

import heapq
from collections.abc import Mapping


def merge_pairs(symbols: list[str], ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Merge adjacent symbols, the pair of the lowest rank first, until no pair has a rank.

    Equals open_clip's `SimpleTokenizer.bpe` for any table of ranks. Each of its passes picks the pair
    of the lowest rank and merges every occurrence, left to right. Here, each turn of the loop is one
    such pass: the heap yields all positions of that pair in ascending order, and pairs that the pass
    creates wait for the next turn.

    Args:
        symbols: of one word, N of them.
        ranks: of pairs; each pair has its own rank.

    Returns:
        The merged symbols, in order.
    """
    n = len(symbols)
    # An empty symbol has been merged into the one before it. Positions -1 and n are the ends.
    merged = list(symbols)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    heap: list[tuple[int, int]] = []

    def push(left: int) -> None:
        right = after[left]
        if right < n and (rank := ranks.get((merged[left], merged[right]))) is not None:
            heapq.heappush(heap, (rank, left))

    for position in range(n - 1):
        push(position)
    while heap:
        lowest = heap[0][0]
        positions = []
        while heap and heap[0][0] == lowest:
            positions.append(heapq.heappop(heap)[1])
        for left in positions:
            right = after[left]
            # An earlier merge may have changed the pair since it was pushed.
            if not merged[left] or right >= n or ranks.get((merged[left], merged[right])) != lowest:
                continue
            merged[left] += merged[right]
            merged[right] = ""
            after[left] = after[right]
            if after[right] < n:
                before[after[right]] = left
                push(left)
            if before[left] >= 0:
                push(before[left])
    return [symbol for symbol in merged if symbol]
