"""Why a sample was kept or dropped, as a record that reconciles with the stored scores to the last bit.

Reads a `FinishedRun`. Invariant: difficulty + support from all neighbours = forward score, and
forward score - suppression by the neighbours picked earlier = selection score, in the kernel's
integers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.d2.fixed_point import SCALE, message, to_fixed
from d2prune.parts.files import DECISIONS, SAMPLES
from d2prune.report.outcome import NOT_RANKED, describe_outcome
from d2prune.runs.finished import FinishedRun

_DECISION_COLUMNS = (
    "uid", "shard", "key", "difficulty", "forward_score", "selection_score", "selection_fixed", "kept",
    "reason", "suppressed_by", "suppressor", "suppression",
)  # fmt: skip
_SAMPLE_COLUMNS = ("caption", "clip_score", "width", "height", "offset", "size")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Neighbour:
    """A neighbour of the explained sample; scores and messages are in units of the score.

    Attributes:
        position: canonical.
        uid: its uid.
        caption: its caption.
        kept: whether it was kept.
        reason: the decision's.
        selection_score: None if it was not ranked.
        distance: Euclidean, between the vectors the graph was built on, 0 to 2.
        cosine: of the same two vectors.
        support_received: what the explained sample's score gained from it in the forward pass.
        suppression_received: what it subtracted from the explained sample's score in the reverse pass; 0 if
            the sample was picked first.
        suppression_sent: what its score lost to the explained sample; 0 if it was picked first.
    """

    position: int
    uid: str
    caption: str
    kept: bool
    reason: str
    selection_score: float | None
    distance: float
    cosine: float
    support_received: float
    suppression_received: float
    suppression_sent: float


@dataclass(frozen=True)
class Explanation:
    """One sample, its outcome and how its scores came about.

    Attributes:
        position: canonical.
        sample: its columns of the samples and the decisions, by name.
        url: URL of the tar that holds it; None if the run recorded none.
        fixed: forward score minus suppression, in fixed point; equal to the stored selection score if
            `reconciled`.
        reconciled: whether stored scores, graph and messages agree to the last bit.
        rank: 1 is picked first; None if it was not ranked.
        ranked: number of samples that were ranked.
        kept_from: the smallest fraction of the pool that keeps it; None if it was not ranked or the
            budget is shared among groups.
        threshold: the lowest selection score that was kept, in its group if there are groups; None if
            nothing was kept.
        outcome: whether it was kept, and if not, why.
        method: `d2`, or another `select.method`; others send no messages.
        keeper: canonical position of the sample kept in place of a duplicate; None for others.
        duplicates: (canonical position, uid, reason) of the samples dropped for this one.
        neighbours: nearest first.
    """

    position: int
    sample: dict[str, Any]
    url: str | None
    fixed: int
    reconciled: bool
    rank: int | None
    ranked: int
    kept_from: float | None
    threshold: float | None
    outcome: str
    method: str
    keeper: int | None
    duplicates: tuple[tuple[int, str, str], ...]
    neighbours: tuple[Neighbour, ...]

    @property
    def suppressed_by(self) -> Neighbour | None:
        """The neighbour that suppressed it most."""
        return next((n for n in self.neighbours if n.position == self.sample["suppressor"]), None)

    @property
    def suppressed(self) -> tuple[Neighbour, ...]:
        """The neighbours that it suppressed, most suppressed first."""
        sent = (n for n in self.neighbours if n.suppression_sent > 0)
        return tuple(sorted(sent, key=lambda n: -n.suppression_sent))


@dataclass(frozen=True)
class Ranking:
    """The decisions about a pool of N samples, as far as ranks and the threshold need them.

    Attributes:
        fixed_N: int64, exact selection scores.
        ranked_N: bool, False if the sample was dropped before the ranking.
        kept_N: bool.
    """

    fixed_N: NDArray[np.int64]
    ranked_N: NDArray[np.bool_]
    kept_N: NDArray[np.bool_]

    @classmethod
    def of_table(cls, decisions: pa.Table) -> "Ranking":
        """From the columns selection_fixed, reason and kept of the decisions."""
        return cls(
            decisions["selection_fixed"].to_numpy(),
            ~np.asarray(pc.is_in(decisions["reason"], value_set=pa.array(NOT_RANKED)).to_numpy()).astype(
                bool
            ),
            decisions["kept"].to_numpy().astype(bool),
        )

    def rank(self, position: int) -> int:
        """Rank of a sample; 1 is picked first."""
        own = self.fixed_N[position]
        higher = np.count_nonzero((self.fixed_N > own) & self.ranked_N)
        ties = np.count_nonzero((self.fixed_N[:position] == own) & self.ranked_N[:position])
        return int(higher + ties) + 1

    @cached_property
    def ranked(self) -> int:
        """Number of samples that were ranked."""
        return int(np.count_nonzero(self.ranked_N))

    @cached_property
    def threshold(self) -> float | None:
        """The lowest selection score that was kept; None if nothing was kept."""
        return float(self.fixed_N[self.kept_N].min()) / SCALE if self.kept_N.any() else None


def read_ranking(run: FinishedRun) -> Ranking:
    """Read the ranking of the whole pool, 10 bytes per sample."""
    columns = ["selection_fixed", "kept", "reason"]
    return Ranking.of_table(pa.concat_tables(run.parts.peek_all(DECISIONS, columns)))


def read_threshold(run: FinishedRun, position: int, ranking: Ranking) -> float | None:
    """The lowest selection score that was kept: in the sample's own group, if there are groups."""
    groups = run.select.params.get("groups")
    if groups is None:
        return ranking.threshold
    label_N = run.parts.column(DECISIONS if groups == "shard" else SAMPLES, groups).combine_chunks()
    same_N = np.asarray(pc.fill_null(pc.equal(label_N, label_N[position]), not label_N[position].is_valid))
    fixed_M = ranking.fixed_N[same_N & ranking.kept_N]
    return float(fixed_M.min()) / SCALE if len(fixed_M) else None


def explain(run: FinishedRun, position: int, ranking: Ranking, threshold: float | None = None) -> Explanation:
    """Explain the decision about the sample at a canonical position.

    Args:
        run: the run.
        position: canonical.
        ranking: of the whole pool.
        threshold: of the sample, if it is known; default: `read_threshold`.
    """
    threshold = read_threshold(run, position, ranking) if threshold is None else threshold
    near, sq_distances = run.neighbours(position)
    positions = np.concatenate([[position], near]).astype(np.int64)
    rows = run.parts.take(positions, DECISIONS, _DECISION_COLUMNS).to_pylist()
    captions = run.parts.take(positions, SAMPLES, ["caption"])["caption"].to_pylist()
    columns = [*_SAMPLE_COLUMNS, *run.fields]
    sample = {**rows[0], **run.parts.take(positions[:1], SAMPLES, columns).to_pylist()[0]}
    messages = _recompute_messages(run, rows, positions, sq_distances)
    neighbours = [
        Neighbour(
            position=int(at),
            uid=row["uid"],
            caption=caption or "",
            kept=row["kept"],
            reason=row["reason"],
            selection_score=row["selection_score"] if row["reason"] not in NOT_RANKED else None,
            distance=float(np.sqrt(np.float64(sq_distance))),
            cosine=float(1 - np.float64(sq_distance) / 2),
            support_received=exchange.support_received / SCALE,
            suppression_received=exchange.suppression_received / SCALE,
            suppression_sent=exchange.suppression_sent / SCALE,
        )
        for at, row, caption, sq_distance, exchange in zip(
            near, rows[1:], captions[1:], sq_distances, messages, strict=True
        )
    ]
    is_ranked = sample["reason"] not in NOT_RANKED
    rank = ranking.rank(position) if is_ranked else None
    has_groups = run.select.params.get("groups") is not None
    difficulty = int(to_fixed(np.array([sample["difficulty"]], np.float32))[0])
    fixed = difficulty + sum(m.support_received - m.suppression_received for m in messages)
    forward = sample["forward_score"] if is_ranked else None
    keeper, cosine = run.keeper(position) or (None, None)
    return Explanation(
        position=position,
        sample=sample,
        url=run.urls.get(sample["shard"]),
        fixed=fixed,
        reconciled=run.method != "d2" or fixed == sample["selection_fixed"],
        rank=rank,
        ranked=ranking.ranked,
        kept_from=rank / len(run) if rank is not None and not has_groups else None,
        threshold=threshold,
        outcome=describe_outcome(
            sample["reason"], forward, threshold, run.method, sample["suppressed_by"], cosine
        ),
        keeper=keeper,
        duplicates=_list_duplicates(run, position),
        method=run.method,
        neighbours=tuple(sorted(neighbours, key=lambda n: (n.distance, n.position))),
    )


def _list_duplicates(run: FinishedRun, position: int) -> tuple[tuple[int, str, str], ...]:
    found = run.duplicates(position)
    if not len(found):
        return ()
    rows = run.parts.take(found, DECISIONS, ["uid", "reason"]).to_pylist()
    return tuple((at, row["uid"], row["reason"]) for at, row in zip(found.tolist(), rows, strict=True))


@dataclass(frozen=True)
class _Messages:
    """What a sample and one neighbour sent each other, in fixed point; see `Neighbour`."""

    support_received: int
    suppression_received: int
    suppression_sent: int


def _recompute_messages(
    run: FinishedRun, rows: Sequence[Row], positions: NDArray[np.int64], sq_distances: NDArray[np.float32]
) -> list[_Messages]:
    """Recompute the messages between a sample, row 0, and its neighbours, the other rows."""
    gamma_forward, gamma_reverse = run.gammas
    difficulty = to_fixed(np.array([row["difficulty"] for row in rows], np.float32)).tolist()
    fixed = [int(row["selection_fixed"]) for row in rows]
    own, found = int(positions[0]), []
    for row, (position, sq_distance) in enumerate(zip(positions[1:].tolist(), sq_distances, strict=True), 1):
        support = int(message(difficulty[row], gamma_forward, sq_distance))
        # The higher score was picked first; ties go to the lower position.
        picked_first = fixed[row] > fixed[0] or (fixed[row] == fixed[0] and position < own)
        sent = 0
        if run.method == "d2":
            sent = int(message(max(fixed[row] if picked_first else fixed[0], 0), gamma_reverse, sq_distance))
        found.append(_Messages(support, sent if picked_first else 0, 0 if picked_first else sent))
    return found
