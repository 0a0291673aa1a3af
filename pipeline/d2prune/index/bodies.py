"""Bodies: the lists of one partition as bytes, filled row by row in the order of the pool.

Reads rows with their lists; returns the bytes that `views` describes. Invariant: within a list, rows are
in canonical order, so the bytes of all partitions together do not depend on their number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.index.views import row_bytes

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Codes = NDArray[np.uint8]


class Body:
    """The lists [first, first + L) of the pool.

    Attributes:
        data: uint8, the bytes.
    """

    def __init__(self, first: int, sizes_L: Int64, n_dims: int) -> None:
        """Allocate the lists; `sizes_L` is int64 [L], their rows."""
        self._first, self._sizes_L = first, np.ascontiguousarray(sizes_L)
        starts = np.concatenate([[0], np.cumsum(self._sizes_L)]) * row_bytes(n_dims)
        self._starts_L = starts[:-1].astype(np.int64)
        self._filled_L = np.zeros(len(sizes_L), np.int64)
        self.data: Codes = np.empty(int(starts[-1]), np.uint8)

    def add(self, codes_NC: Codes, lists_N: Int32, positions_N: Int64) -> None:
        """Append rows to their lists; those of other partitions are skipped.

        Args:
            codes_NC: uint8 [N, C], contiguous.
            lists_N: int32 [N], each row's list in the pool.
            positions_N: int64 [N], ascending, also from call to call.
        """
        _place_rows(
            codes_NC,
            lists_N,
            positions_N,
            self._first,
            self._starts_L,
            self._sizes_L,
            self._filled_L,
            self.data,
        )

    def is_full(self) -> bool:
        """Return whether every row has arrived."""
        return bool((self._filled_L == self._sizes_L).all())


def plan_partitions(sizes_L: Int64, n_bytes: int, most_bytes: int) -> list[int]:
    """Divide lists into as few consecutive ranges as hold at most `most_bytes`, or one list, each.

    Args:
        sizes_L: int64 [L], rows of each list.
        n_bytes: of one row.
        most_bytes: of a partition.

    Returns:
        [K+1], the first list of each partition, then L.
    """
    bounds, held = [0], 0
    for number, size in enumerate((sizes_L * n_bytes).tolist()):
        if held and held + size > most_bytes:
            bounds.append(number)
            held = 0
        held += size
    return [*bounds, len(sizes_L)]


@kernel
def _place_rows(
    codes_NC: Codes,
    lists_N: Int32,
    positions_N: Int64,
    first: int,
    starts_L: Int64,
    sizes_L: Int64,
    filled_L: Int64,
    body: Codes,
) -> None:
    width = codes_NC.shape[1]
    for n in range(lists_N.shape[0]):
        number = lists_N[n] - first
        if number < 0 or number >= sizes_L.shape[0]:
            continue
        slot, start = filled_L[number], starts_L[number]
        filled_L[number] = slot + 1
        if slot >= sizes_L[number]:
            continue
        at = start + slot * width
        body[at : at + width] = codes_NC[n]
        at = start + sizes_L[number] * width + 8 * slot
        position = positions_N[n]
        for byte in range(8):
            body[at + byte] = np.uint8((position >> (8 * byte)) & 255)
