"""Reads the rows of one part for a step: as stored, as feature rows, or its distinct rows only.

Rows with identical bytes form a group, represented by its first row in canonical order. A part's
*distinct rows* are the first rows of its own groups. A distinct row is a *member* if no earlier
part holds the same bytes: only members are stored in lists, and a found member stands for the rows
of its group. N rows, Q distinct rows, M members, D dimensions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import UserError
from d2prune.graph.steps.job import Job
from d2prune.knn.duplicates import DuplicateGroups
from d2prune.knn.features import DegenerateEmbeddingError
from d2prune.knn.recall import RECALL_QUERIES
from d2prune.knn.stable_sample import lowest, rank_rows
from d2prune.parts.features import read_embeddings, unit_features
from d2prune.parts.files import SAMPLES
from d2prune.stage import exchange
from d2prune.store import artifacts

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

LOCAL_GROUPS = "groups.npy"
COPIES = "copies.bin"
MEMBERS_OF_GROUPS = "groups.bin"
RANKED = "ranked.npy"

COPY = np.dtype([("position", "<i8")])
"""A part's distinct row that repeats a row of an earlier part."""
GROUP_MEMBER = np.dtype([("representative", "<i8"), ("position", "<i8")])
"""A row of a group of several rows; only the first K rows of a group are recorded."""


RANKED_ROW = np.dtype([("rank", "<u8"), ("row", "<i4")])
"""A distinct row of a part among those of lowest rank; the sample of the pool is drawn from them."""
# The sample, and the rows that nprobe was chosen on.
_RANKED = 2 * RECALL_QUERIES
# Parts in memory at a time, to read a few rows of each.
_READERS = 4


def rank_distinct(job: Job, rows_QD: Float32) -> exchange.Records:
    """Return the RANKED_ROW records of a part's distinct rows, float32 [Q, D]."""
    rank_Q = rank_rows(rows_QD, job.params.seed)
    chosen = lowest(rank_Q, _RANKED)
    records = np.empty(len(chosen), RANKED_ROW)
    records["rank"], records["row"] = rank_Q[chosen], chosen
    return records


def read_raw(job: Job, part: int) -> NDArray[Any]:
    """Read a part's embeddings as they are stored, [N, D], or [N, 2 D] for image+text."""
    return read_embeddings(job.pool, part, job.params.embeddings, job.params.features)


def features_of(job: Job, raw_ND: NDArray[Any], first_row: int = 0) -> Float32:
    """Normalise stored rows into feature rows; each one's bits depend on that row alone."""
    return unit_features(job.params.features, raw_ND, first_row)


def checked_features(job: Job, part: int) -> tuple[NDArray[Any], Float32]:
    """Read a part for the first time: its `read_raw` and their `features_of`.

    Raises:
        UserError: an embedding cannot be normalised; names its shard and key.
    """
    raw_ND, start = read_raw(job, part), int(job.starts[part])
    try:
        return raw_ND, features_of(job, raw_ND, start)
    except DegenerateEmbeddingError as error:
        row = artifacts.read_table(job.embed_folder, job.parts[part], SAMPLES, ["shard", "key"])
        shard, key = (row[name][error.row - start].as_py() for name in ("shard", "key"))
        named = DegenerateEmbeddingError(error.name, error.row, error.fault, f" (shard {shard}, key {key})")
        # A plain UserError, because an exception whose constructor takes other arguments than its
        # message cannot be unpickled in the driver.
        raise UserError(str(named)) from None


@dataclass(frozen=True)
class LocalGroups:
    """The rows of a part that are not cut off, grouped by their bytes.

    Attributes:
        kept_N: int64 [N], the rows that are not cut off, ascending.
        group_N: int64 [N], the group of each.
        first_Q: int64 [Q], the first row of each group, ascending: the part's distinct rows.
    """

    kept_N: Int64
    group_N: Int64
    first_Q: Int64


def local_groups(job: Job, part: int) -> LocalGroups:
    """Read the groups that step `distinct` found in a part."""
    group_N = job.array("distinct", part, LOCAL_GROUPS)
    kept_N = np.flatnonzero(group_N >= 0)
    _, first_Q = np.unique(group_N[kept_N], return_index=True)
    return LocalGroups(kept_N, group_N[kept_N], kept_N[first_Q])


@dataclass(frozen=True)
class PartRows:
    """A part's distinct rows, still as stored; convert only the rows needed, a block at a time.

    Attributes:
        positions: int64 [Q], canonical, ascending.
        raw: [Q, D] as stored.
        is_member: bool [Q].
    """

    positions: Int64
    raw: NDArray[Any]
    is_member: NDArray[np.bool_]

    def members(self) -> tuple[Int64, NDArray[Any]]:
        """Positions and stored rows of the members."""
        if self.is_member.all():
            return self.positions, self.raw
        return self.positions[self.is_member], self.raw[self.is_member]


def read_part(job: Job, part: int) -> PartRows:
    """Read the distinct rows of a part from its embeddings."""
    first_Q = local_groups(job, part).first_Q
    positions_Q = first_Q + job.starts[part]
    raw_QD = read_raw(job, part)
    if len(first_Q) < len(raw_QD):
        raw_QD = raw_QD[first_Q]
    copies = exchange.read_concatenated(job.urls("copies", job.buckets, COPIES), COPY, part)["position"]
    return PartRows(positions_Q, raw_QD, ~np.isin(positions_Q, copies))


def members_of_groups(job: Job, part: int) -> exchange.Records:
    """Read the GROUP_MEMBER records of the groups whose representative is in a part."""
    return exchange.read_concatenated(job.urls("copies", job.buckets, MEMBERS_OF_GROUPS), GROUP_MEMBER, part)


def groups_of(members_G: exchange.Records) -> tuple[DuplicateGroups, Int64]:
    """Collect the groups of several rows, for `duplicates.expand`.

    Args:
        members_G: GROUP_MEMBER records, each once.

    Returns:
        The groups, and the canonical positions [N] of their rows.
    """
    members_G = members_G[np.lexsort((members_G["position"], members_G["representative"]))]
    _, first_R, group_N = np.unique(members_G["representative"], return_index=True, return_inverse=True)
    indptr = np.append(first_R, len(members_G)).astype(np.int64)
    row_N = np.arange(len(members_G))
    return DuplicateGroups(first_R, group_N.astype(np.int64), indptr, row_N), members_G["position"].copy()


def read_rows(job: Job, positions_S: Int64) -> Float32:
    """Read the feature rows at some positions, float32 [S, D], in the given order."""

    def read(piece: tuple[int, Int64, Int64]) -> tuple[Int64, Float32]:
        part, index, rows = piece
        return index, features_of(job, read_raw(job, part)[rows], int(job.starts[part]))

    with ThreadPoolExecutor(_READERS) as pool:
        pieces = list(pool.map(read, job.spans.by_part(positions_S)))
    if not pieces:
        return features_of(job, read_raw(job, 0)[:0])
    out_SD = np.empty((len(positions_S), pieces[0][1].shape[1]), np.float32)
    for index, rows in pieces:
        out_SD[index] = rows
    return out_SD
