"""Uids of the samples that a partition's samples refer to, requested from the partitions that own them.

The suppressor of a sample, or the keeper of a duplicate, may be anywhere in the pool, and only its
owner has read its uid. So each partition requests the uids of the distinct positions it needs from
every owner (itself included), receives them in that order, and looks up the uids for its samples
part by part. Memory: the uids of the partition's own parts, and at most as many received uids as it
has samples; never the pool's.

Suffixes: N own samples, W distinct samples that they refer to.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.partition_layout import sort_distinct
from d2prune.parts.files import SAMPLES
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans

Int64s = npt.NDArray[np.int64]

UID_TYPE = pa.large_string()
"""Type of uids in memory: the offsets of `pa.string()` end at 2 GiB, which is 67 million uids."""


def read_uids(parts: Parts, numbers: Sequence[int]) -> pa.LargeStringArray:
    """Read the uids of some parts' samples, in canonical order."""
    columns = [parts.read(part, SAMPLES, ["uid"])["uid"].cast(UID_TYPE) for part in numbers]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.concat_arrays([pa.array([], UID_TYPE), *chunks])


def make_requests(target_N: Int64s, owners: Spans) -> dict[int, Int64s]:
    """Group the distinct positions by the partition that owns them.

    Args:
        target_N: int64 [N], canonical positions; -1: none.
        owners: canonical positions of each partition.

    Returns:
        owner -> canonical positions, ascending; owners without any are left out.
    """
    wanted_W = _distinct(target_N)
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


class TargetUids:
    """Uids of the samples that a partition's samples refer to."""

    def __init__(self, target_N: Int64s, received: Mapping[int, pa.LargeStringArray]) -> None:
        """`received` holds the requested uids by owner, in the order of `make_requests`."""
        self._target_N, self._wanted_W = target_N, _distinct(target_N)
        uids = [received[owner] for owner in sorted(received)]
        self._uids = pa.concat_arrays([pa.array([], UID_TYPE), *uids])

    def of_rows(self, rows: slice) -> pa.StringArray:
        """Return the uids for some of the samples; null where the position is -1."""
        position_M = self._target_N[rows]
        index_M = np.searchsorted(self._wanted_W, position_M)
        return self._uids.take(pa.array(index_M, mask=position_M < 0)).cast(pa.string())


def _distinct(target_N: Int64s) -> Int64s:
    return sort_distinct(target_N[target_N >= 0])
