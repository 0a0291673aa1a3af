"""Step `send`: send rows to the partitions whose lists they visit, a wave of partitions at a time.

A row travels to several partitions, so all rows in transit take several times the pool. Partitions
are therefore searched in waves: rows are sent to those of one wave, searched, and deleted. The first
destinations of a wave's file, one per partition, are for rows whose home list is there, the second
for rows that only visit. Rows travel as they are stored (float16) and are normalised on arrival; a
row's bits depend on that row alone, so sender and receiver agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.graph.steps.assign import VISITED, smallest_integer, visited_partitions
from d2prune.graph.steps.job import Job
from d2prune.graph.steps.part_rows import read_part
from d2prune.graph.steps.quantise import NPROBE, PARTITIONS
from d2prune.stage import exchange
from d2prune.store.artifacts import Receipt

VISITORS = "visitors.bin"
# Rows copied at a time.
_BLOCK = 16_384


def send_rows(job: Job, index: int) -> Receipt:
    """Send the distinct rows of a part to the partitions of one wave."""
    wave, part = divmod(index, len(job.parts))
    first, stop = job.wave_bounds[wave : wave + 2]
    rows, visited_QP = read_part(job, part), job.array("assign", part, VISITED)
    numbering = Numbering.of(job.array("layout", 0, PARTITIONS))
    dtype = visitor_type(job, numbering)
    sent = []
    for start in range(0, len(rows.raw), _BLOCK):
        block = slice(start, start + _BLOCK)
        partition_QP = numbering.partition_L[visited_QP[block]]
        # Partitions of other waves become one more partition, which is dropped.
        in_wave_QP = np.where(
            (partition_QP >= first) & (partition_QP < stop), partition_QP - first, stop - first
        )
        query_V, to_V = visited_partitions(in_wave_QP, stop - first + 1)
        query_V, to_V = query_V[to_V < stop - first], to_V[to_V < stop - first]
        records = np.empty(len(query_V), dtype)
        records["position"] = rows.positions[block][query_V]
        local_QP = numbering.local_L[visited_QP[block]]
        records["probes"] = np.where(in_wave_QP[query_V] == to_V[:, None], local_QP[query_V], -1)
        is_home_V = in_wave_QP[query_V, 0] == to_V
        records["is_member"] = rows.is_member[block][query_V]
        records["raw"] = rows.raw[block][query_V]
        sent.append((records, to_V + np.where(is_home_V, 0, stop - first)))
    if not sent:
        sent.append((np.empty(0, dtype), np.empty(0, np.int64)))
    return job.commit("send", index, {VISITORS: exchange.pack_batches(sent, 2 * (stop - first))})


@dataclass(frozen=True)
class Numbering:
    """The lists, numbered within their partitions.

    Attributes:
        partition_L: int32 [L].
        local_L: [L], number of each list within its partition.
    """

    partition_L: NDArray[np.int32]
    local_L: NDArray[np.integer]

    @classmethod
    def of(cls, partition_L: NDArray[np.int32]) -> Numbering:
        """Number lists in ascending order."""
        order_L = np.argsort(partition_L, kind="stable")
        sizes = np.bincount(partition_L)
        local_L = np.empty(len(partition_L), smallest_integer(int(sizes.max())))
        local_L[order_L] = np.arange(len(partition_L)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return cls(partition_L, local_L)


def visitor_type(job: Job, numbering: Numbering) -> np.dtype[Any]:
    """Return the record of a row sent to a partition.

    `probes` are numbers within that partition, -1 for lists of other partitions.
    """
    facts = job.receipt("assign", 0).facts
    probes, raw = numbering.local_L.dtype.str, np.dtype(facts["dtype"]).str
    return np.dtype(
        [
            ("position", "<i8"),
            ("is_member", "?"),
            ("probes", probes, (facts[NPROBE],)),
            ("raw", raw, (facts["width"],)),
        ]
    )


class Visitors:
    """The rows that the parts sent to one partition."""

    def __init__(self, job: Job, partition: int) -> None:
        """Find the files of the partition's wave."""
        numbering = Numbering.of(job.array("layout", 0, PARTITIONS))
        self.dtype = visitor_type(job, numbering)
        self.lists = np.flatnonzero(numbering.partition_L == partition)
        wave = int(np.searchsorted(job.wave_bounds, partition, side="right")) - 1
        first, stop = job.wave_bounds[wave : wave + 2]
        n_parts = len(job.parts)
        self._urls = [job.url("send", wave * n_parts + part, VISITORS) for part in range(n_parts)]
        self._home, self._other = partition - first, stop - 2 * first + partition

    def read_at_home(self) -> Iterator[exchange.Records]:
        """Read the rows whose home list is in the partition, part by part."""
        return exchange.read_all(self._urls, self.dtype, self._home)

    def read_batches(self, parts: Sequence[int], batch_rows: int) -> Iterator[exchange.Records]:
        """Yield the rows that the parts [first, stop) have elsewhere, 1 to 2 times `batch_rows` at a time."""
        first, stop = parts
        waiting: list[exchange.Records] = []
        for records in exchange.read_all(self._urls[first:stop], self.dtype, self._other):
            for start in range(0, len(records), batch_rows):
                waiting.append(records[start : start + batch_rows])
                if sum(map(len, waiting)) >= batch_rows:
                    yield np.concatenate(waiting)
                    waiting = []
        if waiting:
            yield np.concatenate(waiting)
