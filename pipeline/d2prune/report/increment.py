"""What an increment changed: shards and samples that came and went, and who entered or left the selection.

Streams the decisions of this run and of the run that it continues, part by part; samples that both
pools have are matched as `parts.alignment` does. Memory: a mask of one byte a sample for each pool, and a
bounded number of candidates for the galleries. M samples that moved.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.d2.fixed_point import SCALE
from d2prune.errors import DamagedFileError
from d2prune.parts import files
from d2prune.parts.alignment import Aligned, Alignment
from d2prune.parts.reader import Parts
from d2prune.parts.shard_changes import compare_shards, identity_of
from d2prune.report import formatting, movements
from d2prune.report.increment_data import Fact, Increment, Movement
from d2prune.report.movements import Moved
from d2prune.report.neighbour_changes import NEIGHBOR_COLUMNS, have_other_neighbours
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.replaced import are_replaced, content_columns
from d2prune.report.survey import group_name
from d2prune.report.tally import Extremes, float_column, integer_column
from d2prune.stage.earlier import EarlierRun, changed_settings
from d2prune.store.artifacts import Manifest

Mask = NDArray[np.bool_]
Int64 = NDArray[np.int64]

_SHOWN = (movements.NEW, movements.DISPLACED, movements.FREED)
_SHARE_OF_GALLERY = 4


def read_increment(pool: Parts, record: RunRecord, params: ReportParams) -> Increment | None:
    """Compare a run with the one that it continues; None if it continues none.

    Raises:
        DamagedFileError: a table of this run is damaged. Damage of the earlier one is a line on the page.
    """
    earlier = record.earlier
    if earlier is None:
        return None
    if not earlier.manifests:
        return Increment(earlier.run_id, gone="its artifacts were pruned or are damaged")
    try:
        return _Comparison(pool, record, earlier, params).run()
    except DamagedFileError as error:
        key = error.receipt.split("/")[-2] if error.receipt else ""
        if any(unit.key == key for manifest in record.manifests.values() for unit in manifest.units):
            raise
        return Increment(earlier.run_id, gone=str(error.args[0]))


@dataclass(frozen=True)
class _Selection:
    """What one run keeps: the lowest selection score of each group, and the kept samples' number and mean."""

    thresholds: Mapping[str, int]
    kept: int
    mean_score: float | None


class _Comparison:
    def __init__(self, pool: Parts, record: RunRecord, earlier: EarlierRun, params: ReportParams) -> None:
        self._now, self._record, self._earlier = pool, record, earlier
        shown = {name: found for name, found in earlier.manifests.items() if name != "rank"}
        self._before = Parts.of(record.work_dir, shown)
        self._before.check_aligned(files.DECISIONS)
        self._alignment = Alignment(self._before, self._now)
        self._settings = changed_settings(earlier.manifests, record.manifests)
        self._offsets = float(earlier.manifests["rank"].facts.get("offset") or 0.0), record.score_offset
        self._groups = record.select.params.get("groups")
        self._entered: Counter[str] = Counter()
        self._left: Counter[str] = Counter()
        size = -(-params.gallery // _SHARE_OF_GALLERY)
        self._examples = {reason: Extremes(size) for reason in _SHOWN}

    def run(self) -> Increment:
        gone_N, new_N = self._alignment.unmatched
        earlier = self._earlier.manifests
        before = _read_selection(self._before, earlier["select"].params.get("groups"), self._offsets[0])
        now = _read_selection(self._now, self._groups, self._offsets[1])
        self._count_unmatched(self._before, self._alignment.removed, gone_N, self._left)
        self._count_unmatched(self._now, self._alignment.added, new_N, self._entered)
        for pair in self._alignment.read(files.DECISIONS, movements.COLUMNS):
            self._count_moved(pair, now.thresholds, gone_N, new_N)
        return Increment(
            self._earlier.run_id,
            shards=compare_shards(earlier["embed"].units, self._record.embed.units),
            new=int(new_N.sum()),
            removed=int(gone_N.sum()),
            common=int((~new_N).sum()),
            settings=self._settings,
            facts=self._list_facts(before, now),
            movements=tuple(
                Movement(name, meaning, self._entered[reason], self._left[reason])
                for reason, (name, meaning) in movements.MEANINGS.items()
                if self._entered[reason] or self._left[reason]
            ),
            mean_score=before.mean_score,
            examples={reason: self._find_examples(reason) for reason in _SHOWN},
        )

    def _count_unmatched(
        self, parts: Parts, numbers: Sequence[int], mask_N: Mask, counts: Counter[str]
    ) -> None:
        """Count the kept samples that only one of the pools has."""
        is_new = parts is self._now
        reason = movements.NEW if is_new else movements.REMOVED
        for part in numbers:
            start, stop = parts.spans.bounds(part)
            decisions = parts.peek(part, files.DECISIONS, ["kept", "difficulty"])
            which_M = float_column(decisions, "kept").astype(bool) & mask_N[start:stop]
            counts[reason] += int(which_M.sum())
            if is_new:
                self._add_examples(reason, np.arange(start, stop)[which_M], decisions.filter(which_M))

    def _count_moved(self, pair: Aligned, thresholds: Mapping[str, int], gone_N: Mask, new_N: Mask) -> None:
        kept_before, kept_now = (float_column(side, "kept").astype(bool) for side in (pair.before, pair.now))
        rows = np.flatnonzero(kept_before != kept_now)
        if not len(rows):
            return
        before, now = pair.before.take(rows), pair.now.take(rows)
        positions_M, kept_now = pair.now_M[rows], kept_now[rows]
        if self._settings:
            reasons = np.full(len(rows), movements.SETTINGS)
        else:
            moved = Moved(
                kept_now,
                before,
                now,
                self._find_thresholds(positions_M, thresholds),
                self._offsets,
                _look_up(gone_N, movements.positions_of_suppressors(before)),
                _look_up(new_N, movements.positions_of_suppressors(now)),
                self._find_replaced(pair.before_M[rows], positions_M),
            )

            def compare_neighbours(which_M: Mask) -> Mask:
                places = pair.before_M[rows][which_M], positions_M[which_M]
                return self._have_other_neighbours(*places, gone_N, new_N)

            reasons = movements.explain(moved, self._record.method, self._gamma_moved, compare_neighbours)
        self._entered.update(reasons[kept_now].tolist())
        self._left.update(reasons[~kept_now].tolist())
        for reason in _SHOWN:
            chosen = reasons == reason
            self._add_examples(reason, positions_M[chosen], now.filter(chosen))

    def _add_examples(self, reason: str, positions: Int64, decisions: pa.Table) -> None:
        self._examples[reason].add(float_column(decisions, "difficulty"), positions)

    def _find_examples(self, reason: str) -> Int64:
        positions = self._examples[reason].positions
        if reason != movements.DISPLACED or not len(positions):
            return positions
        decisions = self._now.take(positions, files.DECISIONS, ["suppressor"])
        return np.stack([positions, movements.positions_of_suppressors(decisions)], axis=1).reshape(-1)

    def _find_thresholds(self, positions_M: Int64, thresholds: Mapping[str, int]) -> Int64:
        """The threshold of each sample's group; nothing reaches that of a group that keeps nothing."""
        highest = int(np.iinfo(np.int64).max)
        if self._groups is None:
            return np.full(len(positions_M), thresholds.get("", highest))
        labels = self._now.take(positions_M, files.SAMPLES, [self._groups])[self._groups].to_pylist()
        return np.array([thresholds.get(group_name(label), highest) for label in labels], np.int64)

    def _find_replaced(self, before_M: Int64, now_M: Int64) -> Mask:
        """Whether each sample's uid is that of another sample now, bool [M]; equal parts are not read."""
        before, now = (
            [units[part] for part in parts.spans.part_of(positions_M).tolist()]
            for parts, positions_M in ((self._before, before_M), (self._now, now_M))
            for units in [parts.units("embed")]
        )
        replaced_M = np.array([one.key != other.key for one, other in zip(before, now, strict=True)], bool)
        rows = np.flatnonzero(replaced_M)
        if len(rows):
            columns = content_columns(self._before.names(files.SAMPLES), self._now.names(files.SAMPLES))
            other_file = [identity_of(before[row]) != identity_of(now[row]) for row in rows.tolist()]
            replaced_M[rows] = are_replaced(
                self._before.take(before_M[rows], files.SAMPLES, columns),
                self._now.take(now_M[rows], files.SAMPLES, columns),
                np.array(other_file, bool),
            )
        return replaced_M

    def _have_other_neighbours(self, before_M: Int64, now_M: Int64, gone_N: Mask, new_N: Mask) -> Mask:
        """Whether each sample gained or lost neighbours, bool [M]."""
        if not self._record.graph.units or not self._record.graph.facts.get("n_neighbors", 1):
            return np.zeros(len(now_M), bool)
        return have_other_neighbours(
            self._before.take(before_M, files.NEIGHBORS, NEIGHBOR_COLUMNS),
            self._now.take(now_M, files.NEIGHBORS, NEIGHBOR_COLUMNS),
            gone_N,
            new_N,
        )

    @property
    def _gamma_moved(self) -> bool:
        gammas = _gammas(self._earlier.manifests["rank"]), _gammas(self._record.rank)
        return gammas[0] != gammas[1] or self._offsets[0] != self._offsets[1]

    def _list_facts(self, before: _Selection, now: _Selection) -> tuple[Fact, ...]:
        name = self._record.score_name
        mean_before = before.mean_score if self._earlier.score_name == name else None
        facts = [
            Fact("Samples in the pool", f"{len(self._before):,}", f"{len(self._now):,}"),
            Fact("Kept", f"{before.kept:,}", f"{now.kept:,}"),
            Fact(f"Mean {name} of the kept", *_tell_apart(mean_before, now.mean_score)),
        ]
        if before.thresholds.keys() == now.thresholds.keys() == {""}:
            scores = (each.thresholds[""] / SCALE for each in (before, now))
            facts.append(Fact("Threshold of the selection score", *_tell_apart(*scores)))
        if self._record.method == "d2":
            gammas = _gammas(self._earlier.manifests["rank"]), _gammas(self._record.rank)
            for name, one, other in zip(("forward", "reverse"), *gammas, strict=True):
                facts.append(Fact(f"Gamma, {name} pass", *_tell_apart(one, other)))
        if self._offsets[0] != self._offsets[1]:
            facts.append(Fact("Offset of the scores", *_tell_apart(*self._offsets)))
        recalls = (
            each.facts.get("recall") for each in (self._earlier.manifests["graph"], self._record.graph)
        )
        facts.append(Fact("Graph recall", *(formatting.number(recall) for recall in recalls)))
        return tuple(facts)


def _read_selection(parts: Parts, groups: str | None, offset: float) -> _Selection:
    thresholds: dict[str, int] = {}
    kept, total = 0, 0.0
    for part in range(parts.spans.n_parts):
        decisions = parts.peek(part, files.DECISIONS, ["kept", "selection_fixed", "difficulty"])
        kept_M = float_column(decisions, "kept").astype(bool)
        if not kept_M.any():
            continue
        chosen = decisions.filter(kept_M)
        kept += len(chosen)
        total += float(np.nansum(float_column(chosen, "difficulty") - offset))
        scores = integer_column(chosen, "selection_fixed", 0)
        labels = np.full(len(chosen), "", object)
        if groups is not None:
            column = parts.peek(part, files.SAMPLES, [groups])[groups].filter(pa.array(kept_M))
            labels = np.array([group_name(label) for label in column.to_pylist()], object)
        for label in set(labels.tolist()):
            lowest = int(scores[labels == label].min())
            thresholds[label] = min(thresholds.get(label, lowest), lowest)
    return _Selection(thresholds, kept, total / kept if kept else None)


def _gammas(rank: Manifest | None) -> tuple[float, float]:
    facts = {} if rank is None else rank.facts
    forward, reverse = (float(facts.get(name) or 0.0) for name in ("gamma_forward", "gamma_reverse"))
    return forward, reverse


def _tell_apart(before: float | None, now: float | None) -> tuple[str, str]:
    """Two numbers as text, with as many digits as tell them apart."""
    if before is None or now is None or before == now:
        return formatting.number(before), formatting.number(now)
    return formatting.distinct_numbers(before, now)


def _look_up(mask_N: Mask, positions_M: Int64) -> Mask:
    """The mask at some positions; False where a position is -1."""
    return (positions_M >= 0) & mask_N[np.maximum(positions_M, 0)] if len(mask_N) else positions_M >= 0
