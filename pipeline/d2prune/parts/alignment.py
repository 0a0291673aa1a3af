"""The samples that two pools have in common: those of equal parts by row, all others by uid.

Parts with the same key hold the same rows. Only the rows of the other parts are matched by uid, a
bucket of uids at a time, so memory holds a bucket and a mask of one byte a sample for each pool: a
pool of renamed shards takes more passes, not more memory. If a uid repeats, its first sample in one pool is
the first in the other, and so on. N samples of a pool, M of them matched.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.parts import files
from d2prune.parts.reader import Parts

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BUCKET_ROWS = 1 << 22
_THREADS = 4
_UID_BYTES = 32


@dataclass(frozen=True)
class Aligned:
    """M samples that both pools have; row i of both sides is the same sample.

    Attributes:
        before_M: int64, canonical positions in the earlier pool.
        now_M: int64, canonical positions in the present pool.
        before: the columns asked for, of the earlier pool.
        now: of the present pool.
    """

    before_M: Int64
    now_M: Int64
    before: pa.Table
    now: pa.Table


class Alignment:
    """See the module's docstring.

    Attributes:
        equal: (part of the earlier pool, part of the present pool) with the same rows.
        removed: parts of the earlier pool without an equal one.
        added: parts of the present pool without an equal one.
    """

    def __init__(self, before: Parts, now: Parts, bucket_rows: int = _BUCKET_ROWS) -> None:
        """Compare the keys of the parts; read nothing."""
        self._before, self._now = before, now
        places = defaultdict(list)
        for part, unit in enumerate(before.units("embed")):
            places[unit.key].append(part)
        self.equal: list[tuple[int, int]] = []
        self.added: list[int] = []
        for part, unit in enumerate(now.units("embed")):
            if places[unit.key]:
                self.equal.append((places[unit.key].pop(0), part))
            else:
                self.added.append(part)
        self.removed = sorted(part for left in places.values() for part in left)
        rows = max(_count_rows(before, self.removed), _count_rows(now, self.added))
        self._buckets = max(1, -(-rows // bucket_rows))

    @cached_property
    def unmatched(self) -> tuple[Mask, Mask]:
        """The samples that only one pool has, bool: gone from the earlier, and new in the present."""
        gone_N, new_N = np.zeros(len(self._before), bool), np.zeros(len(self._now), bool)
        for parts, part_numbers, mask_N in (
            (self._before, self.removed, gone_N),
            (self._now, self.added, new_N),
        ):
            for part in part_numbers:
                mask_N[slice(*parts.spans.bounds(part))] = True
        for pair in self._join(files.SAMPLES, ()):
            gone_N[pair.before_M], new_N[pair.now_M] = False, False
        return gone_N, new_N

    def read(self, table: str, columns: Sequence[str]) -> Iterator[Aligned]:
        """Yield the samples in common, with columns of a table; equal parts first, in order."""

        def read_part(parts: tuple[int, int]) -> Aligned:
            before, now = parts
            return Aligned(
                np.arange(*self._before.spans.bounds(before)),
                np.arange(*self._now.spans.bounds(now)),
                self._before.peek(before, table, columns),
                self._now.peek(now, table, columns),
            )

        with ThreadPoolExecutor(_THREADS) as threads:
            # A few parts at a time, so that those that wait stay few.
            for start in range(0, len(self.equal), _THREADS):
                yield from threads.map(read_part, self.equal[start : start + _THREADS])
        yield from self._join(table, columns)

    def _join(self, table: str, columns: Sequence[str]) -> Iterator[Aligned]:
        """Match the samples of parts that only one pool has by uid."""
        if not self.removed or not self.added:
            return
        for bucket in range(self._buckets):
            before_M, before = self._read_bucket(self._before, self.removed, table, columns, bucket)
            now_M, now = self._read_bucket(self._now, self.added, table, columns, bucket)
            rows_before, rows_now = _match(before["uid"], now["uid"])
            yield Aligned(
                before_M[rows_before], now_M[rows_now], before.take(rows_before), now.take(rows_now)
            )

    def _read_bucket(
        self, parts: Parts, numbers: Sequence[int], table: str, columns: Sequence[str], bucket: int
    ) -> tuple[Int64, pa.Table]:
        def read(part: int) -> tuple[Int64, pa.Table]:
            found = parts.peek(part, table, list(dict.fromkeys(["uid", *columns])))
            start, stop = parts.spans.bounds(part)
            if self._buckets == 1:
                return np.arange(start, stop), found
            rows = np.flatnonzero(_find_buckets(found["uid"], self._buckets) == bucket)
            return start + rows, found.take(rows)

        with ThreadPoolExecutor(_THREADS) as threads:
            found = list(threads.map(read, numbers))
        return np.concatenate([rows for rows, _ in found]), pa.concat_tables([rows for _, rows in found])


def _count_rows(parts: Parts, numbers: Sequence[int]) -> int:
    return int(np.diff(parts.spans.starts)[list(numbers)].sum())


def _find_buckets(uids: pa.ChunkedArray, buckets: int) -> Int64:
    """The bucket of each uid, int64 [N]; it depends on the uid alone."""
    column = uids.combine_chunks()
    usual_N = np.asarray(pc.equal(pc.binary_length(column), _UID_BYTES))
    found_N = np.empty(len(column), np.int64)
    fixed = column.filter(usual_N).cast(pa.binary()).cast(pa.binary(_UID_BYTES))
    words = np.frombuffer(fixed.buffers()[1] or b"", np.uint64, 4 * len(fixed), _UID_BYTES * fixed.offset)
    mixed = (words.reshape(-1, 4) * np.array([3, 5, 7, 9], np.uint64)).sum(axis=1)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    found_N[usual_N] = (mixed >> np.uint64(32)) % np.uint64(buckets)
    found_N[~usual_N] = [crc32(uid.encode()) % buckets for uid in column.filter(~usual_N).to_pylist()]
    return found_N


def _match(before: pa.ChunkedArray, now: pa.ChunkedArray) -> tuple[Int64, Int64]:
    """Rows of both sides with the same uid: its first on one side and its first on the other, and so on."""
    both = pa.chunked_array([*before.chunks, *now.chunks], pa.string()).combine_chunks().dictionary_encode()
    code_N = np.asarray(both.indices, np.int64)
    codes = code_N[: len(before)], code_N[len(before) :]
    turns = [_count_earlier(code) for code in codes]
    most = 1 + max(int(turn.max(initial=0)) for turn in turns)
    one, other = (code * most + turn for code, turn in zip(codes, turns, strict=True))
    _, rows_before, rows_now = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    order = np.argsort(rows_now)
    return rows_before[order], rows_now[order]


def _count_earlier(code_N: Int64) -> Int64:
    """How many earlier rows have the same code, int64 [N]."""
    order = np.argsort(code_N, kind="stable")
    sorted_N = code_N[order]
    starts = np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]]) if len(code_N) else order
    turn_N = np.empty(len(code_N), np.int64)
    turn_N[order] = np.arange(len(code_N)) - np.repeat(starts, np.diff([*starts, len(code_N)]))
    return turn_N
