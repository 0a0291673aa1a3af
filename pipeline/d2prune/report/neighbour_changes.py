"""Which samples gained or lost neighbours between two graphs: tables of neighbours in, a mask out.

M samples, E their neighbours, N samples of a pool.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Int64 = NDArray[np.int64]

NEIGHBOR_COLUMNS = ("indices", "sq_distances")
"""Columns of the table of neighbours that `have_other_neighbours` needs."""


def have_other_neighbours(before: pa.Table, now: pa.Table, gone_N: Mask, new_N: Mask) -> Mask:
    """Whether each sample gained or lost neighbours, bool [M].

    Args:
        before: NEIGHBOR_COLUMNS of M samples in the earlier graph.
        now: of the same samples in the present one; its positions are those of another pool.
        gone_N: bool, which samples of the earlier pool are gone.
        new_N: bool, which samples of the present pool are new.
    """
    one, other = _Edges.of(before), _Edges.of(now)
    changed_M: Mask = (one.count_M != other.count_M) | one.touch(gone_N) | other.touch(new_N)
    # Equal neighbours have equal distances, in whatever order their positions put them.
    same_M = ~changed_M
    differ_E = one.sort(same_M) != other.sort(same_M)
    changed_M |= _any_of(one.row_E[same_M[one.row_E]], differ_E, len(changed_M))
    return changed_M


@dataclass(frozen=True)
class _Edges:
    """The E neighbours of M samples.

    Attributes:
        count_M: int64 [M], neighbours of each sample.
        row_E: int64 [E], the sample, ascending.
        to_E: int64 [E], the neighbour.
        distance_E: float32 [E].
    """

    count_M: Int64
    row_E: Int64
    to_E: Int64
    distance_E: NDArray[np.float32]

    @classmethod
    def of(cls, neighbors: pa.Table) -> "_Edges":
        """From `indices` and `sq_distances` of a table of neighbours."""
        lists = neighbors["indices"].combine_chunks()
        count_M = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), np.int64)
        return cls(
            count_M,
            np.repeat(np.arange(len(count_M)), count_M),
            np.asarray(lists.flatten(), np.int64),
            np.asarray(neighbors["sq_distances"].combine_chunks().flatten(), np.float32),
        )

    def touch(self, mask_N: Mask) -> Mask:
        """Whether a neighbour of each sample is in a mask, bool [M]."""
        return _any_of(self.row_E, mask_N[self.to_E], len(self.count_M))

    def sort(self, which_M: Mask) -> NDArray[np.float32]:
        """The distances of some samples, ascending for each."""
        order_E = np.lexsort((self.distance_E, self.row_E))
        return self.distance_E[order_E][which_M[self.row_E]]


def _any_of(row_E: Int64, true_E: Mask, rows: int) -> Mask:
    """Whether anything is true of each row, bool [M]."""
    return np.bincount(row_E, true_E, rows) > 0
