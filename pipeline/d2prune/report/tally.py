"""Counts over every decision, streamed by part: totals, histograms and the samples at the extremes.

Memory: the bins, and a bounded number of candidates. Ties go to the lower canonical position, so
the result does not depend on how the pool is split into parts. N rows, B bins.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.report.outcome import NOT_RANKED
from d2prune.report.page_data import Histogram

COLUMNS = ("difficulty", "selection_score", "kept", "reason")
"""Columns of the decisions that `Tally.add` needs."""
RANKING_COLUMNS = (
    "difficulty",
    "forward_score",
    "selection_score",
    "selection_fixed",
    "kept",
    "reason",
    "suppressor",
)
"""Columns of the decisions that tell how each sample was ranked."""


@dataclass
class Extremes:
    """The canonical positions of the `size` rows with the highest values so far; ties go to the lower one."""

    size: int
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    positions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: NDArray[np.float64], positions: NDArray[np.int64]) -> None:
        """Add candidate rows; values that are not finite are ignored."""
        finite = np.isfinite(values)
        values = np.concatenate([self.values, values[finite]])
        positions = np.concatenate([self.positions, positions[finite]])
        best = np.lexsort((positions, -values))[: self.size]
        self.values, self.positions = values[best], positions[best]


@dataclass
class Tally:
    """Running counts; call `add` with every part.

    Args:
        difficulty_edges: float64 [B + 1].
        selection_edges: float64 [B + 1].
        size: how many candidates of each kind to keep.
        offset: subtracted from the stored difficulty, to count in units of the score.
        is_clamped: whether a difficulty of 0 stands for any score of at most -offset. Such samples are
            counted in `clamped` and not in the histogram of the score.
    """

    difficulty_edges: NDArray[np.float64]
    selection_edges: NDArray[np.float64]
    size: int
    offset: float = 0.0
    is_clamped: bool = False

    def __post_init__(self) -> None:
        self.samples = self.kept = 0
        self.clamped = {True: 0, False: 0}
        self.reasons: Counter[str] = Counter()
        self.score_sum = {True: 0.0, False: 0.0}
        self.threshold = np.inf
        self._edges = {"difficulty": self.difficulty_edges, "selection_score": self.selection_edges}
        self._bins = {
            name: {kept: np.zeros(len(edges) - 1, np.int64) for kept in (True, False)}
            for name, edges in self._edges.items()
        }
        self.lowest_dropped = Extremes(self.size)

    def add(self, start: int, decisions: pa.Table) -> None:
        """Count one part; `start` is the canonical position of its first row."""
        positions_N = start + np.arange(decisions.num_rows, dtype=np.int64)
        kept_N = float_column(decisions, "kept").astype(bool)
        score_N = float_column(decisions, "difficulty") - self.offset
        selection_N = ranked_column(decisions, "selection_score")
        if self.is_clamped:
            clamped_N = float_column(decisions, "difficulty") == 0
            for kept in (True, False):
                self.clamped[kept] += int((clamped_N & (kept_N == kept)).sum())
        self.samples += len(kept_N)
        self.kept += int(kept_N.sum())
        for reason in pc.value_counts(decisions["reason"]).to_pylist():
            self.reasons[reason["values"]] += reason["counts"]
        for kept in (True, False):
            self.score_sum[kept] += float(np.nansum(score_N[kept_N == kept]))
        # One bar of clamped scores would dwarf all others, and none of them has the score it shows.
        shown_N = np.where(clamped_N, np.nan, score_N) if self.is_clamped else score_N
        for name, values_N in (("difficulty", shown_N), ("selection_score", selection_N)):
            for kept in (True, False):
                self._bins[name][kept] += bin_counts(values_N[kept_N == kept], self._edges[name])
        if kept_N.any():
            self.threshold = min(self.threshold, float(np.nanmin(selection_N[kept_N])))
        self.lowest_dropped.add(np.where(kept_N, np.nan, -score_N), positions_N)

    def histogram(self, name: str) -> Histogram:
        """Kept and dropped counts of `difficulty` or `selection_score`."""
        return Histogram(self._edges[name], self._bins[name][True], self._bins[name][False])

    def mean_score(self) -> tuple[float, float]:
        """Mean score of the pool and of the kept samples; nan if there are none."""
        total = self.score_sum[True] + self.score_sum[False]
        return (
            total / self.samples if self.samples else np.nan,
            self.score_sum[True] / self.kept if self.kept else np.nan,
        )


def float_column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as a writable float64 [N]; nulls become nan."""
    column = table[name] if pa.types.is_boolean(table[name].type) else table[name].cast(pa.float64())
    return np.array(column.to_numpy(), dtype=np.float64)


def ranked_column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A score as float64 [N]; nan for samples that were dropped before the ranking."""
    values = float_column(table, name)
    values[pc.is_in(table["reason"], value_set=pa.array(NOT_RANKED)).to_numpy()] = np.nan
    return values


def exact_ranks(table: pa.Table) -> NDArray[np.int64]:
    """The exact selection score as int64 [N]; the lowest int64 for samples that were not ranked."""
    lowest = int(np.iinfo(np.int64).min)
    ranked_N = ~np.isnan(ranked_column(table, "selection_score"))
    return np.where(ranked_N, integer_column(table, "selection_fixed", lowest), lowest)


def integer_column(table: pa.Table, name: str, null: int) -> NDArray[np.int64]:
    """A column as int64 [N], exactly; nulls become `null`."""
    values = table[name].cast(pa.int64()).combine_chunks().fill_null(null)
    return np.array(values.to_numpy(zero_copy_only=False), dtype=np.int64)


def bin_edges(values: NDArray[np.float64], bins: int = 40) -> NDArray[np.float64]:
    """Edges of equal bins that cover all but the lowest and highest 0.1% of `values`, float64 [B + 1]."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.linspace(0.0, 1.0, bins + 1)
    low, high = np.quantile(finite, [0.001, 0.999])
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def bin_counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of values in each bin [edge, next edge), int64 [B].

    Values outside the edges count in the outer bins; nan counts nowhere.
    """
    finite = values[~np.isnan(values)]
    index = np.clip(np.searchsorted(edges, finite, side="right") - 1, 0, len(edges) - 2)
    return np.asarray(np.bincount(index, minlength=len(edges) - 1), dtype=np.int64)
