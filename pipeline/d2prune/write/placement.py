"""Place kept samples in tars that outlast the run: arrays in, arrays out.

A tar keeps its samples. One that lost some keeps the others, under a new name. One that is left with
less than half of `samples_per_shard` is dissolved; its samples and the new ones fill new tars, in this
order, up to `samples_per_shard` each. So all tars but the last hold at least half, and a placement is
that of the same samples once more.

N kept samples now, M before, S samples in a tar. Identities are `receipts.Ids`, [N, 4].
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from d2prune.output.receipts import Ids

Int64 = NDArray[np.int64]

_VERSION = 1
"""Increased whenever the same samples give other bytes of a tar or its table."""


def place(before: Sequence[Ids], now: Ids, samples_per_shard: int) -> list[Int64]:
    """Place the kept samples.

    Args:
        before: the samples of each tar of the output before, in tar order.
        now: [N, 4], the kept samples, in canonical order.
        samples_per_shard: the most samples of a tar.

    Returns:
        For each tar the rows of `now` that it holds, in tar order. Each row is in exactly one.
    """
    row_M = match(np.concatenate([np.zeros((0, 4), np.uint64), *before]), now)
    stay: list[Int64] = []
    loose: list[Int64] = []
    for start, stop in itertools.pairwise(itertools.accumulate(map(len, before), initial=0)):
        rows = row_M[start:stop]
        rows = rows[rows >= 0]
        (stay if 2 * len(rows) >= samples_per_shard else loose).append(rows)
    is_new_N = np.ones(len(now), np.bool_)
    is_new_N[row_M[row_M >= 0]] = False
    rest = np.concatenate([*loose, np.flatnonzero(is_new_N)])
    return [*stay, *(rest[i : i + samples_per_shard] for i in range(0, len(rest), samples_per_shard))]


def match(before: Ids, now: Ids) -> Int64:
    """Match equal samples, those that occur several times in turn.

    Args:
        before: [M, 4].
        now: [N, 4].

    Returns:
        int64 [M], the row of `now`, -1: none.
    """
    ids = np.concatenate([before, now])
    found = np.full(len(before), -1, np.int64)
    if not len(ids):
        return found
    # Stable, so equal samples stay in order, those before first. A word of the checksum alone, a hash,
    # decides nearly always.
    order = np.argsort(ids[:, 2], kind="stable")
    differs = _differs(ids[order])
    if np.any(differs & (ids[order[1:], 2] == ids[order[:-1], 2])):
        order = np.lexsort(ids.T)
        differs = _differs(ids[order])
    group_of = np.concatenate([[0], np.cumsum(differs)])
    is_before = order < len(before)
    starts = np.concatenate([[0], np.flatnonzero(differs) + 1])
    n_before = np.bincount(group_of, weights=is_before, minlength=len(starts)).astype(np.int64)
    ends = np.append(starts[1:], len(order))
    # The i-th before of a group is matched with its i-th now, which is n_before further on.
    at = np.flatnonzero(is_before)
    partner = at + n_before[group_of[at]]
    exists = partner < ends[group_of[at]]
    found[order[at[exists]]] = order[partner[exists]] - len(before)
    return found


def _differs(ids: Ids) -> NDArray[np.bool_]:
    """Whether each row but the first differs from the one before."""
    return np.asarray(np.any(ids[1:] != ids[:-1], axis=1))


def name_tars(tars: Sequence[Int64], now: Ids, keep_executable: bool) -> Iterator[str]:
    """Yield the digest that names each tar: a hash of its samples in their order.

    Tars with the same samples, which repeat in the pool, are numbered.
    """
    seen: Counter[bytes] = Counter()
    for rows in tars:
        content = hashlib.blake2b(now[rows].astype("<u8").tobytes(), digest_size=16).digest()
        text = f"{_VERSION} {keep_executable} {seen[content]} ".encode()
        seen[content] += 1
        yield hashlib.blake2b(text + content, digest_size=8).hexdigest()


def split_at_parts(rows: Int64, starts: Int64) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield the samples of a tar in runs of one part: (part, int32 ascending numbers in the part).

    Args:
        rows: int64 [S], rows of the kept samples, in tar order.
        starts: int64 [P + 1], the first row of each part, and N.
    """
    part_S = np.searchsorted(starts, rows, side="right") - 1
    number_S = (rows - starts[part_S]).astype(np.int32)
    cuts = np.flatnonzero((np.diff(part_S) != 0) | (np.diff(number_S) <= 0)) + 1
    for start, stop in itertools.pairwise([0, *cuts.tolist(), len(rows)]):
        yield int(part_S[start]), number_S[start:stop]
