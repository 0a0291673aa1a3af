"""Steps `distinct` and `copies`: find the rows of the pool that repeat an earlier row, in any part.

`distinct` groups a part's rows by their bytes. It sends a 128-bit hash of each distinct row, with
the first K rows of its group, to the bucket of that hash. `copies` groups a bucket's rows over all
parts and sends the result to the parts. Rows of different parts count as identical if their hashes
are equal: with 10^12 rows, the probability that any two different ones collide is below 10^-14.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import (
    COPIES,
    COPY,
    GROUP_MEMBER,
    LOCAL_GROUPS,
    MEMBERS_OF_GROUPS,
    RANKED,
    checked_features,
    rank_distinct,
)
from d2prune.knn.duplicates import collapse
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

HASHES = "hashes.bin"
HASHED = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<i8")])


def group_rows(job: Job, part: int) -> Receipt:
    """Group the rows of a part by their bytes, and send hashes of the groups to the buckets.

    Raises:
        UserError: an embedding cannot be normalised.
    """
    raw_AD, rows_AD = checked_features(job, part)
    row_bytes = int(raw_AD[:1].nbytes)
    del raw_AD
    start = int(job.starts[part])
    cut_off_A = np.zeros(len(rows_AD), bool)
    if job.cut_off is not None:
        cut_off_A = job.cut_off.drop_mask(job.pool, part)
    kept_N = np.flatnonzero(~cut_off_A)
    rows_ND = rows_AD if len(kept_N) == len(rows_AD) else rows_AD[kept_N]
    groups = collapse(rows_ND)
    group_A = np.full(len(rows_AD), -1, np.int64)
    group_A[kept_N] = groups.group_N
    number_N = np.arange(len(kept_N)) - np.repeat(groups.indptr[:-1], np.diff(groups.indptr))
    among_first_N = number_N < job.n_best
    listed = groups.rows_N[among_first_N]
    digests = [hashlib.blake2b(rows_ND[row], digest_size=16).digest() for row in groups.first_R]
    hash_R2 = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    records = np.empty(len(listed), HASHED)
    records["high"], records["low"] = hash_R2[groups.group_N[listed]].T
    records["position"] = start + kept_N[listed]
    bucket = (records["high"] % np.uint64(job.buckets)).astype(np.int64)
    files = {
        LOCAL_GROUPS: group_A,
        HASHES: exchange.pack(records, bucket, job.buckets),
        RANKED: rank_distinct(job, rows_ND[groups.first_R]),
    }
    facts = {"kept": len(kept_N), "distinct": len(groups.first_R), "row_bytes": row_bytes}
    return job.commit("distinct", part, files, facts=facts)


def find_copies(job: Job, bucket: int) -> Receipt:
    """Group a bucket's rows; send each part its groups, and its distinct rows found in an earlier part."""
    records = exchange.read_concatenated(job.urls("distinct", len(job.parts), HASHES), HASHED, bucket)
    records = records[np.lexsort((records["position"], records["low"], records["high"]))]
    positions = records["position"]
    is_first = _differs_from_previous(records["high"]) | _differs_from_previous(records["low"])
    group = np.cumsum(is_first) - 1
    first = np.flatnonzero(is_first)
    size = np.diff(np.append(first, len(records)))
    representative = positions[first][group]
    number = np.arange(len(records)) - first[group]
    part = job.spans.part_of(positions)
    n_parts = len(job.parts)

    listed = (size[group] > 1) & (number < job.n_best)
    members = np.empty(int(listed.sum()), GROUP_MEMBER)
    members["representative"], members["position"] = representative[listed], positions[listed]
    owner = job.spans.part_of(representative[listed])

    # A part's first record of a group is the part's distinct row.
    repeats = ~is_first & _differs_from_previous(part)
    copied = np.empty(int(repeats.sum()), COPY)
    copied["position"] = positions[repeats]
    files = {
        MEMBERS_OF_GROUPS: exchange.pack(members, owner, n_parts),
        COPIES: exchange.pack(copied, part[repeats], n_parts),
    }
    counts = np.bincount(part[repeats], minlength=n_parts)
    facts = {"copies": [[int(index), int(counts[index])] for index in np.flatnonzero(counts)]}
    return job.commit("copies", bucket, files, facts=facts)


def _differs_from_previous(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Mark the values that differ from the one before, and the first."""
    out = np.ones(len(values), bool)
    out[1:] = values[1:] != values[:-1]
    return out
