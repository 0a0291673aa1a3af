"""The rank and select stages: scores on a graph -> a ranking of the whole pool -> what fits the budget.

`rank` runs forward and reverse pass once, for every budget; `select` draws the line and says of each sample what became
of it and why. Both write one part per input shard, row-aligned with the embed artifact's.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts, schemas
from pipeline.artifacts import Receipt
from pipeline.graph.tables import part_name, read_graph
from pipeline.scores.column import read_score, shift
from pipeline.selection.api import select
from pipeline.selection.fixed_point import to_float

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RankParams:
    """What decides the ranking, given graph and embeddings."""

    difficulty: str
    offset: float | Literal["auto"]
    gamma_forward: float
    gamma_reverse: float


@dataclass(frozen=True)
class RankUnit:
    """The whole pool."""

    key: str
    parts: tuple[Receipt, ...]
    graph: Receipt


def plan_rank(parts: Sequence[Receipt], graph: Receipt, params: RankParams) -> list[RankUnit]:
    """One unit: all parts together."""
    return [RankUnit(artifacts.unit_key("rank", params, graph.key), tuple(parts), graph)]


@dataclass(frozen=True)
class RankWorker:
    """Runs D2's two passes over a graph that fits one machine's memory."""

    embed_folder: str
    graph_folder: str
    folder: str
    params: RankParams

    def __call__(self, unit: RankUnit) -> Receipt:
        """Rank the pool and commit the scores.

        Raises:
            UserError: the score named by `score.difficulty` is missing, not finite, or too large.
        """
        score_N = read_score(self.embed_folder, unit.parts, self.params.difficulty, "score.difficulty")
        offset = self.params.offset
        if offset == "auto":
            offset = -float(score_N.min()) if len(score_N) else 0.0
        difficulty_N = shift(score_N, offset)
        graph, cut_off_N = read_graph(self.graph_folder, unit.graph, len(unit.parts))
        scores = select(graph, difficulty_N, self.params.gamma_forward, self.params.gamma_reverse)
        ranks = pa.table(
            [
                difficulty_N,
                ~cut_off_N,
                scores.forward_score,
                scores.selection_score,
                scores.suppressed_by,
                scores.suppression,
            ],
            schema=schemas.RANKS,
        )
        files: dict[str, pa.Table | bytes] = {}
        start = 0
        for part, receipt in enumerate(unit.parts):
            rows = receipt.rows("samples.parquet")
            files[part_name(part)] = ranks.slice(start, rows)
            start += rows
        return artifacts.commit_unit(
            self.folder, unit.key, files, {"ranked": int((~cut_off_N).sum())}, {"offset": offset}
        )


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
        threshold: selection score, fixed point; those above it are kept.
        ties: of those at the threshold, how many each part keeps: its first ones.
    """

    budget: int
    threshold: int
    ties: tuple[int, ...]


def draw_line(folder: str, ranks: Receipt, n_parts: int, params: SelectParams) -> Line:
    """Find the exact line, part by part: a few rounds of histograms, never a sort of the pool.

    Args:
        folder: `work_dir/rank`.
        ranks: the rank artifact's unit.
        n_parts: input shards.
        params: the budget.

    Raises:
        UserError: more samples are asked for than there are.
    """

    def scores(part: int) -> Int64s:
        table = artifacts.read_table(folder, ranks, part_name(part), ["ranked", "selection_score"])
        return table["selection_score"].to_numpy()[table["ranked"].to_numpy()]

    parts = [scores(part) for part in range(n_parts)]
    every = np.concatenate(parts)
    m = params.size or int(len(every) * params.fraction)
    order = np.sort(every)[::-1]
    t = int(order[m - 1])
    above = int((every > t).sum())
    left = m - above
    ties = []
    for p in parts:
        c = min(left, int((p == t).sum()))
        left -= c
        ties.append(c)
    return Line(m, t, tuple(ties))


@dataclass(frozen=True)
class SelectUnit:
    """One input shard's decisions."""

    key: str
    part: int
    ranks: Receipt
    threshold: int
    ties: int


def plan_select(ranks: Receipt, line: Line) -> list[SelectUnit]:
    """One unit per input shard."""
    return [
        SelectUnit(
            artifacts.unit_key(f"{part:08d}", ranks.key, line.threshold, ties), part, ranks, line.threshold, ties
        )
        for part, ties in enumerate(line.ties)
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
        ranks = artifacts.read_table(self._rank_folder, unit.ranks, part_name(unit.part))
        samples = artifacts.read_table(self._embed_folder, self._parts[unit.part], "samples.parquet", ["shard", "key"])
        score_N, ranked_N = ranks["selection_score"].to_numpy(), ranks["ranked"].to_numpy()
        kept_N = ranked_N & (score_N > unit.threshold)
        kept_N[np.flatnonzero(ranked_N & (score_N == unit.threshold))[: unit.ties]] = True
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
