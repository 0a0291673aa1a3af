"""The select stage: the ranking of the pool -> what fits the budget, and of each sample what became of it and why.

Reads the rank artifact, writes `decisions.parquet` (schemas.DECISIONS) per input shard, row-aligned with embed's parts.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts, schemas
from pipeline.artifacts import Manifest, Receipt
from pipeline.errors import UserError
from pipeline.selection.budget import (
    Threshold,
    count_ties,
    histogram,
    kept_in_part,
    select_threshold,
    size_of_fraction,
    threshold_of_score,
)
from pipeline.selection.fixed_point import to_float
from pipeline.selection.ranking import RANKS

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SelectParams:
    """The budget: exactly one is given. Units as in `config.SelectConfig`."""

    fraction: float | None
    size: int | None
    min_score: float | None


@dataclass(frozen=True)
class Line:
    """Where the budget draws the line through the ranking.

    Attributes:
        budget: samples to keep.
        threshold: the cut, over all parts.
        ties_before: int [P], how many samples at the threshold lie before each part.
    """

    budget: int
    threshold: Threshold
    ties_before: tuple[int, ...]


def draw_line(folder: str, ranks: Manifest, params: SelectParams) -> Line:
    """Find the exact line, part by part: a few rounds of histograms, never a sort of the pool.

    Args:
        folder: `work_dir/rank`.
        ranks: the rank artifact.
        params: the budget; a fraction is of all embedded samples, those that the cut-off removed included.

    Raises:
        UserError: more samples are asked for than are ranked.
    """

    def scores() -> Iterator[Int64s]:
        for receipt in ranks.units:
            table = artifacts.read_table(folder, receipt, RANKS, ["ranked", "selection_score"])
            yield table["selection_score"].to_numpy()[table["ranked"].to_numpy()]

    if params.min_score is not None:
        threshold = threshold_of_score(params.min_score)
        budget = sum(int((score_M > threshold.score).sum()) for score_M in scores())
    else:
        ranked, cut_off = ranks.counters["ranked"], ranks.counters["cut_off"]
        budget = params.size or size_of_fraction(ranked + cut_off, params.fraction or 1.0)
        if budget > ranked:
            option = "select.size" if params.size else f"select.fraction {params.fraction}, that is"
            raise UserError(f"{option} {budget} samples, but only {ranked} are ranked ({cut_off} were cut off)")
        threshold = select_threshold(
            lambda prefix, known, bits: np.sum(
                [histogram(score_M, prefix, known, bits) for score_M in scores()], axis=0
            ),
            budget,
        )
    ties = [count_ties(score_M, threshold) for score_M in scores()]
    return Line(budget, threshold, tuple(np.cumsum([0, *ties[:-1]]).tolist()))


@dataclass(frozen=True)
class SelectUnit:
    """One input shard's decisions."""

    key: str
    part: int
    ranks: Receipt
    threshold: Threshold
    ties_before: int


def plan_select(ranks: Sequence[Receipt], line: Line) -> list[SelectUnit]:
    """One unit per input shard; `ranks` are the rank artifact's."""
    return [
        SelectUnit(
            artifacts.unit_key(f"{part:08d}", receipt.key, line.threshold, ties), part, receipt, line.threshold, ties
        )
        for part, (receipt, ties) in enumerate(zip(ranks, line.ties_before, strict=True))
    ]


class SelectWorker:
    """Says of each sample of a part what became of it."""

    def __init__(self, embed_folder: str, rank_folder: str, folder: str, parts: Sequence[Receipt]) -> None:
        """`parts` are the embed artifact's units: the suppressing neighbour of a sample may lie in any of them."""
        self._embed_folder, self._rank_folder, self._folder, self._parts = embed_folder, rank_folder, folder, parts
        self._starts = np.cumsum([0, *(receipt.rows("samples.parquet") for receipt in parts)])
        self._uids = functools.lru_cache(maxsize=None)(self._read_uids)

    def __call__(self, unit: SelectUnit) -> Receipt:
        """Decide and commit one part."""
        ranks = artifacts.read_table(self._rank_folder, unit.ranks, RANKS)
        samples = artifacts.read_table(self._embed_folder, self._parts[unit.part], "samples.parquet", ["shard", "key"])
        score_N, ranked_N = ranks["selection_score"].to_numpy(), ranks["ranked"].to_numpy()
        kept_N = np.zeros(len(score_N), bool)
        kept_N[ranked_N] = kept_in_part(score_N[ranked_N], unit.threshold, unit.ties_before)
        reason_N = np.where(kept_N, "kept", np.where(ranked_N, "below-budget", "cut-off"))
        suppressor_N = ranks["suppressor"].to_numpy()
        table = pa.table(
            [
                self._uids(unit.part),
                samples["shard"],
                samples["key"],
                ranks["difficulty"],
                to_float(ranks["forward_score"].to_numpy()),
                to_float(score_N),
                score_N,
                kept_N,
                reason_N,
                self._uids_at(suppressor_N),
                suppressor_N,
                to_float(ranks["suppression"].to_numpy()),
            ],
            schema=schemas.DECISIONS,
        )
        counters = {
            "kept": int(kept_N.sum()),
            "below_budget": int((ranked_N & ~kept_N).sum()),
            "cut_off": int((~ranked_N).sum()),
        }
        return artifacts.commit_unit(self._folder, unit.key, {"decisions.parquet": table}, counters)

    def _read_uids(self, part: int) -> pa.ChunkedArray:
        return artifacts.read_table(self._embed_folder, self._parts[part], "samples.parquet", ["uid"])["uid"]

    def _uids_at(self, position_N: Int64s) -> pa.Array:
        """The uids at canonical positions; null for -1."""
        uids: npt.NDArray[Any] = np.full(len(position_N), None, object)
        part_N = np.searchsorted(self._starts, position_N, side="right") - 1
        for part in np.unique(part_N[position_N >= 0]):
            rows = np.flatnonzero(part_N == part)
            uids[rows] = self._uids(int(part)).take(pa.array(position_N[rows] - self._starts[part])).to_numpy()
        return pa.array(uids, pa.string())
