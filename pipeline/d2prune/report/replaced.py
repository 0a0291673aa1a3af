"""Which samples that two pools have under one uid are not the same: their rows in, a mask out.

M samples.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_PLACE = frozenset(("shard", "key", "uid", "offset", "size"))
"""Columns of `samples` that say where a sample is, and not what it is."""


def content_columns(before: list[str], now: list[str]) -> list[str]:
    """The columns by which samples are compared, of those that both tables of samples have."""
    return [name for name in now if name in before and name not in _PLACE]


def are_replaced(before: pa.Table, now: pa.Table, other_file_M: Mask) -> Mask:
    """Whether each sample was replaced by another with its uid, bool [M].

    Args:
        before: `content_columns` of the earlier samples.
        now: of the present ones.
        other_file_M: bool [M], whether the file that each was read from changed. It decides for a sample
            of a table without scores, of whose embeddings no checksum is known.
    """
    differs_M = np.zeros(len(now), bool)
    for name in now.column_names:
        differs_M |= _differ(before[name], now[name])
    unknown_M = np.ones(len(now), bool)
    for side in (before, now):
        for name in ("checksum", "clip_score"):
            unknown_M &= np.asarray(pc.is_null(side[name]), bool)
    return differs_M | (unknown_M & other_file_M)


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Mask:
    nothing, nothing_now = (np.asarray(pc.is_null(each, nan_is_null=True), bool) for each in (one, other))
    differs_M = np.asarray(pc.fill_null(pc.not_equal(one, other), False), bool)
    return np.asarray((nothing != nothing_now) | (differs_M & ~nothing & ~nothing_now), bool)
