"""Worker of the select stage: decides which samples of a part are kept, and records why.

Reads the part's samples and ranks, writes its `decisions.parquet` (schemas.DECISIONS), row-aligned
with both. It needs no other part: the uids of suppressors elsewhere are in the ranking already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from d2prune.d2.budget import kept_in_part
from d2prune.d2.fixed_point import to_float
from d2prune.parts.files import DECISIONS, DUPLICATES, RANKS, SAMPLES, SUPPRESSORS
from d2prune.parts.reader import Parts
from d2prune.select.groups import read_labels
from d2prune.select.thresholds import GroupThreshold, SelectionThresholds
from d2prune.store import artifacts, schemas
from d2prune.store.artifacts import Receipt


@dataclass(frozen=True)
class SelectUnit:
    """The decisions of one part.

    Attributes:
        key: of the unit.
        part: number of the part.
        thresholds: of each group, with the ties before this part only.
        groups: column of the groups; None: the whole pool is one group.
    """

    key: str
    part: int
    thresholds: tuple[GroupThreshold, ...]
    groups: str | None


def plan_select(
    ranks: Sequence[Receipt], thresholds: SelectionThresholds, groups: str | None
) -> list[SelectUnit]:
    """Plan one unit per part; `ranks` are the units of the rank artifact."""
    units = []
    for part, receipt in enumerate(ranks):
        own = tuple(
            GroupThreshold(group.group, group.threshold, (group.ties_before[part],))
            for group in thresholds.groups
        )
        key = artifacts.unit_key(f"{part:08d}", receipt.key, own, groups)
        units.append(SelectUnit(key, part, own, groups))
    return units


class SelectWorker:
    """Decides one part at a time."""

    def __init__(self, parts: Parts, folder: str) -> None:
        """`parts` holds the units of embed, rank and any of dedup; `folder` is `work_dir/select`."""
        self._parts, self._folder = parts, folder

    def __call__(self, unit: SelectUnit) -> Receipt:
        """Decide and commit one part."""
        ranks = self._parts.read(unit.part, RANKS)
        suppressors = self._parts.read(unit.part, SUPPRESSORS)
        samples = self._parts.read(unit.part, SAMPLES, ["uid", "shard", "key"])
        score_N, ranked_N = ranks["selection_score"].to_numpy(), ranks["ranked"].to_numpy()
        kept_N = self._select(unit, score_N, ranked_N)
        reason_N = np.where(kept_N, "kept", np.where(ranked_N, "below-budget", "cut-off"))
        suppressed_by, suppressor = suppressors["suppressed_by"], ranks["suppressor"]
        counters = {
            "kept": int(kept_N.sum()),
            "below_budget": int((ranked_N & ~kept_N).sum()),
            "cut_off": int((~ranked_N).sum()),
        }
        if self._parts.units("dedup"):
            # A duplicate is not ranked, so nothing but its keeper suppresses it.
            found = self._parts.read(unit.part, DUPLICATES)
            reason_N = pc.coalesce(found["reason"], pa.array(reason_N))
            suppressed_by = pc.coalesce(found["keeper_uid"], suppressed_by)
            suppressor = pc.if_else(found["dropped"], found["keeper"], suppressor)
            dropped = {
                name: pc.sum(pc.equal(reason_N, reason)).as_py() or 0
                for name, reason in (
                    ("duplicates", schemas.DUPLICATE),
                    ("near_duplicates", schemas.NEAR_DUPLICATE),
                )
            }
            counters |= {**dropped, "cut_off": counters["cut_off"] - sum(dropped.values())}
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
                suppressed_by,
                suppressor,
                to_float(ranks["suppression"].to_numpy()),
            ],
            schema=schemas.DECISIONS,
        )
        return artifacts.commit_unit(self._folder, unit.key, {DECISIONS: table}, counters)

    def _select(
        self, unit: SelectUnit, score_N: npt.NDArray[np.int64], ranked_N: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Return which samples of the part are kept, bool [N]."""
        kept_N = np.zeros(len(score_N), np.bool_)
        if unit.groups is not None:
            label_N = read_labels(self._parts, unit.part, unit.groups)
        for group in unit.thresholds:
            member_N = ranked_N if unit.groups is None else ranked_N & (label_N == group.group)
            kept_N[member_N] = kept_in_part(score_N[member_N], group.threshold, *group.ties_before)
        return kept_N
