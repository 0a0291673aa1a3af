"""The select stage: the ranking of the pool -> what fits the budget, and of each sample what became of it and why.

Reads the rank artifact, writes `decisions.parquet` (schemas.DECISIONS) per input shard, row-aligned
with embed's parts. A worker holds one part: whom another part's sample suppressed, the ranking has named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.d2.budget import (
    Threshold,
    count_ties,
    histogram,
    kept_in_part,
    quotas,
    select_threshold,
    size_of_fraction,
    threshold_of_score,
)
from d2prune.d2.fixed_point import SCALE, to_float
from d2prune.errors import UserError
from d2prune.parts.files import DECISIONS, RANKS, SAMPLES, SUPPRESSORS
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Manifest, Receipt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SelectParams:
    """The budget: one of the first three is given. Units as in `config.SelectConfig`."""

    fraction: float | None
    size: int | None
    min_score: float | None
    groups: str | None


@dataclass(frozen=True)
class Cut:
    """Where the budget draws the line through one group.

    Attributes:
        group: its label; "" where the pool is one group.
        threshold: the cut, over all parts.
        ties_before: int [P], how many of its samples at the threshold lie before each part.
    """

    group: str
    threshold: Threshold
    ties_before: tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """Where the budget draws the line: `budget` samples are kept, cut group by group."""

    budget: int
    cuts: tuple[Cut, ...]


def draw_line(
    rank_folder: str, ranks: Manifest, embed_folder: str, parts: Sequence[Receipt], params: SelectParams
) -> Line:
    """Find the exact line: a few rounds of histograms over the parts, never a sort of the pool.

    Groups get their share of the ranked samples by largest remainder; memory holds 4 bytes a sample for them.

    Args:
        rank_folder: `work_dir/rank`.
        ranks: the rank artifact.
        embed_folder: `work_dir/embed`.
        parts: the embed artifact's units.
        params: the budget; a fraction is of all embedded samples, those that the cut-off removed included.

    Raises:
        UserError: more samples are asked for than are ranked, or there is no such column.
    """
    ranked, cut_off = ranks.counters["ranked"], ranks.counters["cut_off"]

    def scores(group: str = "") -> Iterator[Int64s]:
        for i, receipt in enumerate(ranks.units):
            table = artifacts.read_table(rank_folder, receipt, RANKS, ["ranked", "selection_score"])
            member_M = table["ranked"].to_numpy()
            if params.groups is not None:
                member_M = member_M & (groups.code_of[i] == groups.codes[group])
            yield table["selection_score"].to_numpy()[member_M]

    def cut(group: str, threshold: Threshold) -> Cut:
        ties = [count_ties(score_M, threshold) for score_M in scores(group)]
        return Cut(group, threshold, tuple(np.cumsum([0, *ties[:-1]]).tolist()))

    def highest(group: str, m: int) -> Cut:
        def counts(prefix: int, known: int, bits: int) -> Int64s:
            return np.asarray(
                sum(histogram(score_M, prefix, known, bits) for score_M in scores(group)), np.int64
            )

        return cut(group, select_threshold(counts, m))

    if params.min_score is not None:
        threshold = threshold_of_score(params.min_score)
        budget = sum(int((score_M > threshold.score).sum()) for score_M in scores())
        if not budget:
            best = max((int(score_M.max()) for score_M in scores() if len(score_M)), default=0) / SCALE
            raise UserError(
                f"select.min_score {params.min_score} keeps no sample: the highest score is {best:.6g}"
            )
        return Line(budget, (cut("", threshold),))
    budget = params.size or size_of_fraction(ranked + cut_off, params.fraction or 1.0)
    if budget > ranked:
        option = "select.size" if params.size else f"select.fraction {params.fraction}, that is"
        raise UserError(f"{option} {budget} samples, but only {ranked} are ranked ({cut_off} were cut off)")
    if params.groups is None:
        return Line(budget, (highest("", budget),))
    groups = read_groups(embed_folder, parts, params.groups)
    names = sorted(groups.codes)
    shares = quotas([sum(len(score_M) for score_M in scores(name)) for name in names], budget)
    return Line(
        budget, tuple(highest(name, share) for name, share in zip(names, shares, strict=True) if share)
    )


@dataclass(frozen=True)
class Groups:
    """The groups of a pool: the number of each, and int32 [N] per part, that of each sample."""

    codes: dict[str, int]
    code_of: list[npt.NDArray[np.int32]]


def read_groups(embed_folder: str, parts: Sequence[Receipt], name: str) -> Groups:
    """Number the groups of a pool; raises what `read_labels` does."""
    groups = Groups({}, [])
    for part in parts:
        distinct, place_N = np.unique(read_labels(embed_folder, part, name), return_inverse=True)
        codes = [groups.codes.setdefault(label, len(groups.codes)) for label in distinct.tolist()]
        groups.code_of.append(np.array(codes, np.int32)[place_N])
    return groups


def read_labels(embed_folder: str, part: Receipt, name: str) -> npt.NDArray[np.str_]:
    """The groups of a part's samples, str [N].

    Raises:
        UserError: there is no such column of text.
    """
    try:
        column = artifacts.read_table(embed_folder, part, SAMPLES, [name])[name]
    except (KeyError, pa.ArrowInvalid) as error:
        raise UserError(
            f"select.groups: {name!r} is no column; expected shard or a text of embed.fields"
        ) from error
    if not pa.types.is_string(column.type):
        raise UserError(f"select.groups: {name!r} is {column.type}, expected a text")
    return np.asarray(column.to_pylist(), np.str_)


@dataclass(frozen=True)
class SelectUnit:
    """One input shard's decisions; `cuts` with the ties before this part only."""

    key: str
    part: int
    ranks: Receipt
    cuts: tuple[Cut, ...]
    groups: str | None


def plan_select(ranks: Sequence[Receipt], line: Line, params: SelectParams) -> list[SelectUnit]:
    """One unit per input shard; `ranks` are the rank artifact's."""
    units = []
    for part, receipt in enumerate(ranks):
        cuts = tuple(Cut(cut.group, cut.threshold, (cut.ties_before[part],)) for cut in line.cuts)
        key = artifacts.unit_key(f"{part:08d}", receipt.key, cuts, params.groups)
        units.append(SelectUnit(key, part, receipt, cuts, params.groups))
    return units


class SelectWorker:
    """Says of each sample of a part what became of it."""

    def __init__(self, embed_folder: str, rank_folder: str, folder: str, parts: Sequence[Receipt]) -> None:
        """`parts` are the embed artifact's units."""
        self._embed_folder, self._rank_folder, self._folder, self._parts = (
            embed_folder,
            rank_folder,
            folder,
            parts,
        )

    def __call__(self, unit: SelectUnit) -> Receipt:
        """Decide and commit one part."""
        ranks = artifacts.read_table(self._rank_folder, unit.ranks, RANKS)
        suppressors = artifacts.read_table(self._rank_folder, unit.ranks, SUPPRESSORS)
        samples = artifacts.read_table(
            self._embed_folder, self._parts[unit.part], SAMPLES, ["uid", "shard", "key"]
        )
        score_N, ranked_N = ranks["selection_score"].to_numpy(), ranks["ranked"].to_numpy()
        kept_N = np.zeros(len(score_N), bool)
        if unit.groups is not None:
            label_N = read_labels(self._embed_folder, self._parts[unit.part], unit.groups)
        for cut in unit.cuts:
            member_N = ranked_N if unit.groups is None else ranked_N & (label_N == cut.group)
            kept_N[member_N] = kept_in_part(score_N[member_N], cut.threshold, *cut.ties_before)
        reason_N = np.where(kept_N, "kept", np.where(ranked_N, "below-budget", "cut-off"))
        table = pa.table(
            [
                samples["uid"],
                samples["shard"],
                samples["key"],
                ranks["difficulty"],
                to_float(ranks["forward_score"].to_numpy()),
                to_float(score_N),
                score_N,
                kept_N,
                reason_N,
                suppressors["suppressed_by"],
                ranks["suppressor"],
                to_float(ranks["suppression"].to_numpy()),
            ],
            schema=schemas.DECISIONS,
        )
        counters = {
            "kept": int(kept_N.sum()),
            "below_budget": int((ranked_N & ~kept_N).sum()),
            "cut_off": int((~ranked_N).sum()),
        }
        return artifacts.commit_unit(self._folder, unit.key, {DECISIONS: table}, counters)
