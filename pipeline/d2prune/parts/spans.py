"""The map between a sample's canonical position and its part and row.

Parts and their rows are in canonical order, so a canonical position is the number of rows in all
earlier parts plus the row. P is the number of parts, N the number of positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """The range of canonical positions of each part.

    Attributes:
        starts: int64 [P + 1], position of each part's first row, then the number of samples.
    """

    starts: Int64

    @classmethod
    def of_rows(cls, rows: Sequence[int]) -> Spans:
        """From the number of rows of each part, P >= 0; a part may be empty."""
        return cls(np.cumsum([0, *rows], dtype=np.int64))

    def __len__(self) -> int:
        """Samples in all parts."""
        return int(self.starts[-1])

    @property
    def n_parts(self) -> int:
        """P."""
        return len(self.starts) - 1

    def bounds(self, part: int) -> tuple[int, int]:
        """The first canonical position of a part and the one after its last."""
        return int(self.starts[part]), int(self.starts[part + 1])

    def part_of(self, positions_N: Int64) -> Int64:
        """The part of each canonical position, int64 [N]."""
        return np.searchsorted(self.starts, positions_N, side="right") - 1

    def locate(self, positions_N: Int64) -> tuple[Int64, Int64]:
        """The part of each canonical position and the row in it, int64 [N] each."""
        part_N = self.part_of(positions_N)
        return part_N, positions_N - self.starts[part_N]

    def by_part(self, positions_N: Int64) -> Iterator[tuple[int, Int64, Int64]]:
        """Group positions by part.

        Yields:
            A part, int64 [M] indices into `positions_N`, and int64 [M] rows in the part.
        """
        part_N, row_N = self.locate(positions_N)
        order_N = np.argsort(part_N, kind="stable")
        parts, first = np.unique(part_N[order_N], return_index=True)
        for part, index_M in zip(parts.tolist(), np.split(order_N, first[1:]), strict=bool(len(parts))):
            yield part, index_M, row_N[index_M]
