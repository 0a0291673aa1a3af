"""Find the samples of the pool that a subset file names.

A uid that the subset file names c times and that k samples of the pool have is written c times:
entry i is sample i mod k in canonical order. A repeated uid therefore repeats its only sample, as
in DataComp's resharder, and the subset file of a run, which names the uid of two kept samples
twice, selects both.

Legend of shapes: S entries of the subset file, N samples of one tar, M samples that match.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.output import subset
from d2prune.reshard.shard_index import SCHEMA

Positions = npt.NDArray[np.int64]


def select_rows(wanted: subset.UidArray, indexes: Sequence[pa.Table]) -> pa.Table:
    """Select the rows to write, in canonical order.

    Args:
        wanted: `subset.DTYPE` [S], sorted, repeats allowed.
        indexes: for each input tar a table of `shard_index.SCHEMA`.

    Returns:
        The columns of `shard_index.SCHEMA` and `part` (int32, number of the tar); a sample that is
        written several times has as many adjacent rows.
    """
    parts, entries = [], []
    for part, index in enumerate(indexes):
        rows, entry = find_entries(wanted, subset.encode(index["uid"].to_pylist()))
        numbers = pa.array(np.full(len(rows), part, dtype=np.int32))
        parts.append(index.take(rows).append_column("part", numbers))
        entries.append(entry)
    schema = SCHEMA.append(pa.field("part", pa.int32()))
    found = pa.concat_tables([schema.empty_table(), *parts])
    first = np.concatenate([np.zeros(0, np.int64), *entries])
    return found.take(np.repeat(np.arange(found.num_rows), count_copies(first, wanted)))


def find_entries(wanted: subset.UidArray, uids: subset.UidArray) -> tuple[Positions, Positions]:
    """Find the `uids` that are in `wanted`.

    Args:
        wanted: `subset.DTYPE` [S], sorted.
        uids: `subset.DTYPE` [N], in any order.

    Returns:
        int64 [M], the rows of `uids` that are in `wanted`, ascending; and int64 [M], the first
        entry of `wanted` for each of them.
    """
    high, low = wanted["f0"], wanted["f1"]
    entry = np.searchsorted(high, uids["f0"], "left")
    rows = np.arange(len(uids))
    # Step over entries with an equal first half and a smaller second half. Uids are hashes, so entries
    # with equal first halves are almost always repeats of one uid, and the loop ends after one pass.
    while True:
        inside = entry < len(wanted)
        rows, entry = rows[inside], entry[inside]
        here = high[entry] == uids["f0"][rows]
        rows, entry = rows[here], entry[here]
        behind = low[entry] < uids["f1"][rows]
        if not behind.any():
            break
        entry = entry + behind
    same = low[entry] == uids["f1"][rows]
    return rows[same].astype(np.int64), entry[same].astype(np.int64)


def count_copies(first: Positions, wanted: subset.UidArray) -> Positions:
    """Count how often each matching sample is written; see the module's docstring for the rule.

    Args:
        first: int64 [M], for each sample in canonical order the first entry of its uid in `wanted`.
        wanted: `subset.DTYPE` [S], sorted.

    Returns:
        int64 [M]; the sum is the number of entries of `wanted` that have a sample.
    """
    changed = np.ones(len(wanted), dtype=bool)
    changed[1:] = wanted[1:] != wanted[:-1]
    starts = np.flatnonzero(changed)
    entries = np.diff(np.append(starts, len(wanted)))[np.searchsorted(starts, first)]
    order = np.argsort(first, kind="stable")
    _, group_start, group_size = np.unique(first[order], return_index=True, return_counts=True)
    rank, holders = np.empty_like(first), np.empty_like(first)
    rank[order] = np.arange(len(first)) - np.repeat(group_start, group_size)
    holders[order] = np.repeat(group_size, group_size)
    return np.asarray(entries // holders + (rank < entries % holders), dtype=np.int64)
