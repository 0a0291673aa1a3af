"""Uids of suppressors: each partition requests them from the partitions that own the suppressors.

A sample's suppressor may be anywhere in the pool, and only its owner has read its uid. So each
partition requests the uids of the distinct positions it needs from every owner (itself included),
receives them in that order, and looks up the uids for its samples part by part. Memory: the uids of
the partition's own parts, and at most as many received uids as it has samples; never the pool's.

Pure functions of arrays. N own samples, W distinct suppressors of theirs.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.partition_layout import sort_distinct
from d2prune.parts.spans import Spans

Int64s = npt.NDArray[np.int64]

UID_TYPE = pa.large_string()
"""Type of uids in memory: the offsets of `pa.string()` end at 2 GiB, which is 67 million uids."""


def make_requests(suppressor_N: Int64s, owners: Spans) -> dict[int, Int64s]:
    """Group the distinct suppressors by the partition that owns them.

    Args:
        suppressor_N: int64 [N], canonical positions; -1: none.
        owners: canonical positions of each partition.

    Returns:
        owner -> canonical positions, ascending; owners without any are left out.
    """
    wanted_W = _distinct(suppressor_N)
    bounds = np.searchsorted(wanted_W, owners.starts)
    return {owner: wanted_W[lo:hi] for owner, (lo, hi) in enumerate(itertools.pairwise(bounds)) if lo < hi}


def answer_requests(
    requests: Mapping[int, Int64s], uids: pa.LargeStringArray, start: int
) -> dict[int, pa.LargeStringArray]:
    """Look up the uids that other partitions request.

    Args:
        requests: canonical positions by requesting partition, all of them own samples.
        uids: of the own samples.
        start: canonical position of the first own sample.

    Returns:
        Uids by requesting partition, in the order of its request.
    """
    return {source: uids.take(pa.array(position_W - start)) for source, position_W in requests.items()}


class SuppressorUids:
    """Uids of the suppressors of a partition's samples."""

    def __init__(self, suppressor_N: Int64s, received: Mapping[int, pa.LargeStringArray]) -> None:
        """`received` holds the requested uids by owner, in the order of `make_requests`."""
        self._suppressor_N, self._wanted_W = suppressor_N, _distinct(suppressor_N)
        uids = [received[owner] for owner in sorted(received)]
        self._uids = pa.concat_arrays([pa.array([], UID_TYPE), *uids])

    def of_rows(self, rows: slice) -> pa.StringArray:
        """Return the suppressors' uids for some of the samples; null where there is none."""
        position_M = self._suppressor_N[rows]
        index_M = np.searchsorted(self._wanted_W, position_M)
        return self._uids.take(pa.array(index_M, mask=position_M < 0)).cast(pa.string())


def _distinct(suppressor_N: Int64s) -> Int64s:
    return sort_distinct(suppressor_N[suppressor_N >= 0])
