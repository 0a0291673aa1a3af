"""Why a sample was kept or dropped, as a record: everything the run knows of it, reconciled to the last bit.

Reads a `FinishedRun`. Invariant: difficulty + messages from all neighbours = forward score, and
forward score - messages from the neighbours that were picked first = selection score, in the
integers of the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from d2prune.d2.fixed_point import SCALE, message, to_fixed
from d2prune.parts.files import DECISIONS, REJECTS, SAMPLES
from d2prune.runs.finished import FinishedRun

CUT_OFF = "cut-off"
_DECIDED = (
    "uid", "shard", "key", "difficulty", "forward_score", "selection_score", "selection_fixed", "kept", "reason",
    "suppressed_by", "suppressor", "suppression",
)  # fmt: skip
_SAMPLED = ("caption", "clip_score", "width", "height", "offset", "size")
_NEAREST = 3


@dataclass(frozen=True)
class Neighbour:
    """A neighbour of the sample that is explained.

    Attributes:
        position: canonical.
        uid: its name.
        caption: as stored.
        kept: whether it was.
        reason: why.
        selection_score: in units of the score; None where it was not ranked.
        distance: Euclidean, between the vectors the graph was built on: 0 to 2.
        cosine: of the same two.
        raised: what its forward message added to the sample, in units of the score.
        lowered: what its reverse message took from the sample; 0 where the sample was picked first.
        lowers: what the sample's own reverse message took from it.
    """

    position: int
    uid: str
    caption: str
    kept: bool
    reason: str
    selection_score: float | None
    distance: float
    cosine: float
    raised: float
    lowered: float
    lowers: float


@dataclass(frozen=True)
class Explained:
    """One sample and what became of it.

    Attributes:
        position: canonical.
        sample: columns of its rows in samples and decisions, by name.
        url: of the tar it lies in; None where the run left none.
        fixed: forward score minus what neighbours took, equal to the stored selection score where
            `reconciled`.
        reconciled: whether stored scores, graph and messages agree to the last bit.
        rank: 1 = picked first; None where it was not ranked.
        ranked: samples that were ranked.
        kept_from: the smallest fraction of the pool that keeps it; None where it was not ranked or
            groups share the budget.
        threshold: the lowest selection score that was kept; None where nothing was.
        why: one line.
        method: `d2`, or what it was compared with; others send no messages.
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
    why: str
    method: str
    neighbours: tuple[Neighbour, ...]

    @property
    def suppressed_by(self) -> Neighbour | None:
        """Who took most from it."""
        return next((n for n in self.neighbours if n.position == self.sample["suppressor"]), None)

    @property
    def suppressed(self) -> tuple[Neighbour, ...]:
        """From whom it took anything, most first."""
        return tuple(sorted((n for n in self.neighbours if n.lowers > 0), key=lambda n: -n.lowers))


@dataclass(frozen=True)
class Rejected:
    """A sample that was read but not embedded."""

    shard: str
    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Found:
    """What a name led to: positions of embedded samples, rejected ones, and where neither, the nearest names."""

    positions: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    nearest: tuple[str, ...] = ()


def find(run: FinishedRun, names: Sequence[str]) -> dict[str, Found]:
    """Look names up: a uid, the beginning of one, a key, or `shard/key`. Reads two columns of the pool once.

    A uid that several samples share, or a key that several shards have, finds them all; a beginning
    that fits several uids finds none and names some of them.
    """
    columns = run.parts.peek_all(DECISIONS, ["uid", "key", "shard"])
    uid = _column(columns, "uid")
    key, shard = _column(columns, "key"), _column(columns, "shard")
    rejects = pa.concat_tables(run.parts.peek_all(REJECTS, ["shard", "key", "reason", "detail"]))
    return {name: _find(name, uid, key, shard, rejects) for name in names}


def _column(parts: Sequence[pa.Table], name: str) -> pa.ChunkedArray:
    return pa.concat_tables(parts)[name]


def _find(
    name: str, uid: pa.ChunkedArray, key: pa.ChunkedArray, shard: pa.ChunkedArray, rejects: pa.Table
) -> Found:
    folder, _, own = name.rpartition("/")
    hit = pc.or_(pc.equal(uid, name), _is_key(key, name))
    lost = _is_key(rejects["key"], name)
    if folder:
        hit = pc.or_(hit, pc.and_(pc.equal(shard, folder), _is_key(key, own)))
        lost = pc.or_(lost, pc.and_(pc.equal(rejects["shard"], folder), _is_key(rejects["key"], own)))
    positions = _true(hit)
    rejected = tuple(Rejected(**row) for row in rejects.filter(lost).to_pylist())
    if positions or rejected:
        return Found(positions, rejected)
    for length in range(len(name), 0, -1):
        begins = _true(pc.starts_with(uid, name[:length]))
        named = sorted(set(uid.take(pa.array(begins[:1000])).to_pylist())) if begins else []
        if length == len(name) and len(named) == 1:
            return Found(begins, ())
        if named:
            return Found((), (), tuple(named[:_NEAREST]))
    return Found((), ())


def _is_key(key: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Tars of a whole folder, `tar -C FOLDER .`, have `./` before every name, which nobody types."""
    return pc.is_in(key, value_set=pa.array([name, f"./{name}"]))


def _true(mask: pa.ChunkedArray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(np.asarray(mask.to_numpy()).astype(bool)).tolist())


@dataclass(frozen=True)
class Line:
    """How the pool was decided: enough to say where a sample stands.

    Attributes:
        fixed_N: int64, exact selection scores.
        ranked_N: bool.
        kept_N: bool.
    """

    fixed_N: NDArray[np.int64]
    ranked_N: NDArray[np.bool_]
    kept_N: NDArray[np.bool_]

    def rank(self, position: int) -> int:
        """1 = picked first."""
        own = self.fixed_N[position]
        before = (self.fixed_N > own) | ((self.fixed_N == own) & (np.arange(len(self.fixed_N)) < position))
        return int((before & self.ranked_N).sum()) + 1

    @property
    def threshold(self) -> float | None:
        """The lowest selection score that was kept."""
        return float(self.fixed_N[self.kept_N].min()) / SCALE if self.kept_N.any() else None


def read_line(run: FinishedRun) -> Line:
    """Where the line runs through the pool; 10 bytes a sample."""
    table = pa.concat_tables(run.parts.peek_all(DECISIONS, ["selection_fixed", "kept", "reason"]))
    return Line(
        table["selection_fixed"].to_numpy(),
        np.asarray(pc.not_equal(table["reason"], CUT_OFF).to_numpy()).astype(bool),
        table["kept"].to_numpy().astype(bool),
    )


def explain(run: FinishedRun, position: int, line: Line) -> Explained:
    """Everything there is to know about the sample at a canonical position."""
    near, sq_distance = run.neighbours(position)
    positions = np.concatenate([[position], near]).astype(np.int64)
    decided = run.parts.take(positions, DECISIONS, _DECIDED).to_pylist()
    captions = run.parts.take(positions, SAMPLES, ["caption"])["caption"].to_pylist()
    sampled = run.parts.take(positions[:1], SAMPLES, [*_SAMPLED, *run.fields]).to_pylist()[0]
    own = {**decided[0], **sampled}
    gammas = [float(run.rank.params.get(name, 0.0)) for name in ("gamma_forward", "gamma_reverse")]
    raised, lowered, lowers = _ledger(decided, position, positions, sq_distance, *gammas)
    if run.method != "d2":
        # Another method sends no messages back: its score stands for itself.
        lowered, lowers = [0] * len(near), [0] * len(near)
    neighbours = [
        Neighbour(
            position=int(at),
            uid=row["uid"],
            caption=caption or "",
            kept=row["kept"],
            reason=row["reason"],
            selection_score=row["selection_score"] if row["reason"] != CUT_OFF else None,
            distance=float(np.sqrt(np.float64(sq))),
            cosine=float(1 - np.float64(sq) / 2),
            raised=plus / SCALE,
            lowered=minus / SCALE,
            lowers=gives / SCALE,
        )
        for at, row, caption, sq, plus, minus, gives in zip(
            near, decided[1:], captions[1:], sq_distance, raised, lowered, lowers, strict=True
        )
    ]
    ranked = own["reason"] != CUT_OFF
    forward = int(to_fixed(np.array([own["difficulty"]], np.float32))[0]) + sum(raised)
    rank = line.rank(position) if ranked else None
    grouped = run.select.params.get("groups") is not None
    return Explained(
        position=position,
        sample=own,
        url=run.urls.get(own["shard"]),
        fixed=forward - sum(lowered),
        reconciled=run.method != "d2" or forward - sum(lowered) == own["selection_fixed"],
        rank=rank,
        ranked=int(line.ranked_N.sum()),
        kept_from=rank / len(run) if rank is not None and not grouped else None,
        threshold=line.threshold,
        why=why(own, line.threshold, run.method),
        method=run.method,
        neighbours=tuple(sorted(neighbours, key=lambda n: (n.distance, n.position))),
    )


def _ledger(
    rows: Sequence[dict[str, Any]],
    position: int,
    positions: NDArray[np.int64],
    sq_distance: NDArray[np.float32],
    gamma_forward: float,
    gamma_reverse: float,
) -> tuple[list[int], list[int], list[int]]:
    """Of each neighbour, in the kernel's integers: what it added, what it took, and what was taken from it."""
    difficulty = to_fixed(np.array([row["difficulty"] for row in rows], np.float32)).tolist()
    t = [int(row["selection_fixed"]) for row in rows]
    raised, lowered, lowers = [], [], []
    for other, at, sq in zip(range(1, len(rows)), positions[1:].tolist(), sq_distance, strict=True):
        raised.append(int(message(difficulty[other], gamma_forward, sq)))
        # Whoever has the higher score was picked first; of equals, the earlier position.
        first = t[other] > t[0] or (t[other] == t[0] and at < position)
        sent = int(message(max(t[other] if first else t[0], 0), gamma_reverse, sq))
        lowered.append(sent if first else 0)
        lowers.append(0 if first else sent)
    return raised, lowered, lowers


def why(row: dict[str, Any], threshold: float | None, method: str) -> str:
    """What happened to a sample, in a line: too low from the start, or lowered by neighbours that were picked."""
    if row["reason"] == "kept":
        return "kept"
    if row["reason"] == CUT_OFF:
        return "dropped: cut off by its score before the graph was built"
    if method != "d2":
        return f"dropped: {method} ranks enough others higher"
    if threshold is None or row["forward_score"] < threshold:
        return "dropped: too low from the start, even with its neighbours' support"
    return "dropped: neighbours that were picked first stand for it"
