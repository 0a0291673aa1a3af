"""The samples of a pool that were rejected or filtered, as a list to search and page.

Reads the rejects tables of the embed artifact: all reasons first, and the rest of a part when a
page or a search needs it. Writes nothing; safe to share among threads.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.explore.matching import contains
from d2prune.inputs.rejects import FILTER_REASONS, MEANINGS
from d2prune.parts.files import REJECTS
from d2prune.parts.spans import Spans
from d2prune.runs.finished import FinishedRun

COLUMNS = ("shard", "key", "reason", "detail")
_THREADS = 4


class RejectedSamples:
    """The rejects of one embed artifact, in canonical order."""

    def __init__(self, run: FinishedRun) -> None:
        """Read nothing yet."""
        self._run = run

    @cached_property
    def _reasons(self) -> pa.DictionaryArray:
        tables = self._run.parts.peek_all(REJECTS, ["reason"])
        return pa.concat_tables(tables)["reason"].combine_chunks().dictionary_encode()

    @cached_property
    def _spans(self) -> Spans:
        return Spans.of_rows([unit.rows(REJECTS) for unit in self._run.embed.units])

    def __len__(self) -> int:
        return len(self._spans)

    def counts(self) -> list[dict[str, Any]]:
        """Each reason that occurs: name, meaning, number of samples, and whether it is a filter's."""
        found = pc.value_counts(self._reasons).to_pylist() if len(self) else []
        return [
            {
                "reason": row["values"],
                "meaning": MEANINGS.get(row["values"], ""),
                "samples": row["counts"],
                "filtered": row["values"] in FILTER_REASONS,
            }
            for row in sorted(found, key=lambda row: (-row["counts"], row["values"]))
        ]

    def find(self, words: Sequence[str] = (), reason: str = "") -> NDArray[np.int64]:
        """Rows with a reason (empty: any) whose key, shard and detail contain every word."""
        mask_R = np.ones(len(self), bool)
        if reason and len(self):
            mask_R = np.asarray(pc.equal(self._reasons.cast(pa.string()), reason))
        if words:
            with ThreadPoolExecutor(_THREADS) as threads:
                parts = range(self._spans.n_parts)
                masks = list(threads.map(lambda part: _match(self._read(part), words), parts))
            mask_R &= np.concatenate([np.zeros(0, bool), *masks])
        return np.flatnonzero(mask_R)

    def rows(self, rows_M: NDArray[np.int64]) -> list[dict[str, Any]]:
        """shard, key, reason, its meaning and detail of some rows, in the order given."""
        found: dict[int, dict[str, Any]] = {}
        for part, index_M, row_M in self._spans.by_part(rows_M):
            table = self._read(part).take(row_M)
            found.update(zip(index_M.tolist(), table.to_pylist(), strict=True))
        return [
            {**found[index], "meaning": MEANINGS.get(found[index]["reason"], "")}
            for index in range(len(rows_M))
        ]

    def tables(self, rows_M: NDArray[np.int64]) -> Iterator[pa.Table]:
        """The rows, part by part, as stored."""
        for part, _, row_M in self._spans.by_part(rows_M):
            yield self._read(part).take(row_M)

    def _read(self, part: int) -> pa.Table:
        return self._run.parts.peek(part, REJECTS, COLUMNS)


def _match(table: pa.Table, words: Sequence[str]) -> NDArray[np.bool_]:
    mask_R = np.ones(len(table), bool)
    for word in words:
        hit_R = np.zeros(len(table), bool)
        for name in ("key", "shard", "detail"):
            hit_R |= contains(table[name], word, mask_R)
        mask_R &= hit_R
    return mask_R
