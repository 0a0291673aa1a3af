"""What is counted over every decision, streamed by part: totals, histograms and the samples at the extremes.

Memory: the bins, and a bounded number of candidates. Ties go to the lower canonical position, so
the result does not depend on how the pool is cut into parts.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.report.data import Histogram

CUT_OFF = "cut-off"
COLUMNS = ("difficulty", "selection_score", "kept", "reason")


@dataclass
class Extremes:
    """Canonical positions of the `size` rows with the highest value so far; `key` orders, position breaks ties."""

    size: int
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    positions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: NDArray[np.float64], positions: NDArray[np.int64]) -> None:
        """Offer rows; those that are not finite are left out."""
        finite = np.isfinite(values)
        values = np.concatenate([self.values, values[finite]])
        positions = np.concatenate([self.positions, positions[finite]])
        best = np.lexsort((positions, -values))[: self.size]
        self.values, self.positions = values[best], positions[best]


@dataclass
class Tally:
    """Running counts; feed it every part with `add`.

    Args:
        difficulty_edges: float64 [B + 1].
        selection_edges: float64 [B + 1].
        size: how many candidates of each kind to keep.
        offset: taken off the stored difficulty, to count in the score's own unit.
    """

    difficulty_edges: NDArray[np.float64]
    selection_edges: NDArray[np.float64]
    size: int
    offset: float = 0.0

    def __post_init__(self) -> None:
        self.samples = self.kept = 0
        self.reasons: Counter[str] = Counter()
        self.difficulty_sum = {True: 0.0, False: 0.0}
        self.threshold = np.inf
        self._bins = {
            name: {kept: np.zeros(len(edges) - 1, np.int64) for kept in (True, False)}
            for name, edges in (
                ("difficulty", self.difficulty_edges),
                ("selection_score", self.selection_edges),
            )
        }
        self.lowest_dropped = Extremes(self.size)
        self.border_kept = Extremes(self.size)
        self.border_dropped = Extremes(self.size)

    def add(self, start: int, decisions: pa.Table) -> None:
        """Count one part whose first row has the canonical position `start`."""
        positions = start + np.arange(decisions.num_rows, dtype=np.int64)
        kept = floats(decisions, "kept").astype(bool)
        difficulty = floats(decisions, "difficulty") - self.offset
        selection = competing(decisions, "selection_score")
        self.samples += len(kept)
        self.kept += int(kept.sum())
        for counted in pc.value_counts(decisions["reason"]).to_pylist():
            self.reasons[counted["values"]] += counted["counts"]
        for side in (True, False):
            self.difficulty_sum[side] += float(np.nansum(difficulty[kept == side]))
        for name, values in (("difficulty", difficulty), ("selection_score", selection)):
            edges = self.difficulty_edges if name == "difficulty" else self.selection_edges
            for side in (True, False):
                self._bins[name][side] += bin_counts(values[kept == side], edges)
        if kept.any():
            self.threshold = min(self.threshold, float(np.nanmin(selection[kept])))
        self.lowest_dropped.add(np.where(kept, np.nan, -difficulty), positions)
        self.border_kept.add(np.where(kept, -selection, np.nan), positions)
        self.border_dropped.add(np.where(kept, np.nan, selection), positions)

    def histogram(self, name: str) -> Histogram:
        """Kept and dropped counts of `difficulty` or `selection_score`."""
        edges = self.difficulty_edges if name == "difficulty" else self.selection_edges
        return Histogram(edges, self._bins[name][True], self._bins[name][False])

    def mean_difficulty(self) -> tuple[float, float]:
        """Of the pool and of the kept; nan where there is none."""
        total = self.difficulty_sum[True] + self.difficulty_sum[False]
        return (
            total / self.samples if self.samples else np.nan,
            self.difficulty_sum[True] / self.kept if self.kept else np.nan,
        )


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as a writable float64 [N]; nulls become nan."""
    column = table[name].cast(pa.float64()) if not pa.types.is_boolean(table[name].type) else table[name]
    values = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return np.array(values, dtype=np.float64)


def competing(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A score as float64 [N], nan for samples that a cut-off removed: they never competed, whatever is stored."""
    values = floats(table, name)
    values[pc.equal(table["reason"], CUT_OFF).to_numpy()] = np.nan
    return values


def integers(table: pa.Table, name: str, null: int) -> NDArray[np.int64]:
    """A column as int64 [N], exactly; nulls become `null`."""
    values = table[name].cast(pa.int64()).combine_chunks().fill_null(null)
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.int64)


def bin_edges(values: NDArray[np.float64], bins: int = 40) -> NDArray[np.float64]:
    """Equal bins over the bulk of `values` (0.1 % at either end may lie outside), float64 [B + 1]."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = np.quantile(finite, [0.001, 0.999])
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def bin_counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values lie in each bin [edge, next edge); those outside count in the outer bins, nan nowhere."""
    finite = values[~np.isnan(values)]
    index = np.clip(np.searchsorted(edges, finite, side="right") - 1, 0, len(edges) - 2)
    return np.asarray(np.bincount(index, minlength=len(edges) - 1), dtype=np.int64)
