"""The reason for which a sample entered or left the selection: one case for each, and what comes first."""

import numpy as np
import pyarrow as pa
import pytest

from d2prune.d2.fixed_point import SCALE
from d2prune.report import movements
from d2prune.report.movements import Moved, explain
from d2prune.report.neighbour_changes import have_other_neighbours
from d2prune.report.replaced import are_replaced, content_columns
from d2prune.store.schemas import DECISIONS

# Scores of both runs at a threshold of 1, suppression, reasons, and whether the suppressor came or went.
PLAIN = {
    "before": 2.0, "now": 0.5, "lost_before": 0.0, "lost_now": 0.0, "why_before": "kept",
    "why_now": "below-budget", "difficulty": 1.0, "gone": False, "new": False, "neighbours": False,
    "replaced": False,
}  # fmt: skip
ENTERED = PLAIN | {"before": 0.5, "now": 2.0, "why_before": "below-budget", "why_now": "kept"}
CUT, COPY = {"why_now": "cut-off"}, {"why_now": "near-duplicate"}
CASES = {
    "displaced": (PLAIN | {"new": True, "lost_now": 0.6}, "displaced"),
    "a new sample that takes too little": (
        PLAIN | {"new": True, "lost_now": 0.1, "neighbours": True},
        "neighbours",
    ),
    "displaced before the threshold counts": (
        PLAIN | {"before": 0.9, "new": True, "lost_now": 0.6},
        "displaced",
    ),
    "left by the threshold": (PLAIN | {"before": 1.0}, "threshold"),
    "left by the threshold with the same score": (PLAIN | {"before": 0.5}, "threshold"),
    "left with the neighbours": (PLAIN | {"neighbours": True}, "neighbours"),
    "left with gamma": (PLAIN, "gamma"),
    "a rounded score": (PLAIN | {"difficulty": 1.0 + 2e-7}, "gamma"),
    "another score of its own": (PLAIN | {"difficulty": 0.9, "before": 0.5}, "own-score"),
    "another sample with its uid": (PLAIN | {"difficulty": 0.9, "replaced": True}, "replaced"),
    "another sample, cut off": (PLAIN | CUT | {"difficulty": 0.9, "replaced": True}, "replaced"),
    "another sample with the same score": (PLAIN | {"replaced": True, "neighbours": True}, "neighbours"),
    "cut off": (PLAIN | CUT, "excluded"),
    "duplicate of a new sample": (PLAIN | COPY | {"new": True}, "displaced"),
    "duplicate of an old sample": (PLAIN | COPY, "excluded"),
    "freed": (ENTERED | {"gone": True, "lost_before": 0.6}, "freed"),
    "freed, but not by that alone": (ENTERED | {"gone": True, "lost_before": 0.1}, "gamma"),
    "entered by the threshold": (ENTERED | {"before": 1.0}, "threshold"),
    "entered with the neighbours": (ENTERED | {"neighbours": True}, "neighbours"),
    "no longer cut off": (ENTERED | {"why_before": "cut-off"}, "excluded"),
    "its keeper is gone": (ENTERED | {"why_before": "duplicate", "gone": True}, "freed"),
}


def decisions(rows, side):
    scores = np.array([row[side] for row in rows])
    table = {
        "kept": [row[f"why_{side}"] == "kept" for row in rows],
        "reason": [row[f"why_{side}"] for row in rows],
        "difficulty": [1.0 if side == "before" else row["difficulty"] for row in rows],
        "selection_score": scores,
        "selection_fixed": (scores * SCALE).astype(np.int64),
        "suppressor": np.zeros(len(rows), np.int64),
        "suppression": [row[f"lost_{side}"] or None for row in rows],
    }
    return pa.table(table, pa.schema([DECISIONS.field(name) for name in table]))


def find_reasons(rows, method="d2", gamma_moved=True, offsets=(0.0, 0.0)):
    moved = Moved(
        np.array([row["why_now"] == "kept" for row in rows], bool),
        decisions(rows, "before"),
        decisions(rows, "now"),
        np.full(len(rows), SCALE),
        offsets,
        np.array([row["gone"] for row in rows], bool),
        np.array([row["new"] for row in rows], bool),
        np.array([row["replaced"] for row in rows], bool),
    )
    others = np.array([row["neighbours"] for row in rows], bool)
    return explain(moved, method, gamma_moved, lambda which: others[which]).tolist()


def test_each_reason():
    rows = [row for row, _ in CASES.values()]
    assert dict(zip(CASES, find_reasons(rows), strict=True)) == {
        name: why for name, (_, why) in CASES.items()
    }
    assert set(find_reasons(rows)) | {"new", "removed", "settings", "method", "indirect"} == set(
        movements.MEANINGS
    )
    assert find_reasons([PLAIN], gamma_moved=False) == ["indirect"]
    assert find_reasons([]) == []


def test_an_offset_that_moves_changes_no_score():
    # A score of 0.75 in both runs; the selection score of 1.2 became one of 0.9 with the offset.
    row = PLAIN | {"before": 1.2, "difficulty": 0.7}
    assert find_reasons([row], offsets=(0.25, -0.05)) == ["threshold"]
    assert find_reasons([row], offsets=(0.25, 0.25)) == ["own-score"]
    assert find_reasons([row | {"before": 1.5}], offsets=(0.25, -0.05)) == ["gamma"]


@pytest.mark.parametrize(
    ("method", "reason"), [("score", "threshold"), ("random", "method"), ("semdedup", "method")]
)
def test_other_methods_have_no_suppression(method, reason):
    assert find_reasons([PLAIN | {"before": 1.0, "new": True, "lost_now": 0.6}], method) == [reason]
    assert find_reasons([PLAIN | CUT], method) == ["excluded"]


def neighbors(*rows):
    return pa.table(
        {
            "indices": pa.array([[to for to, _ in row] for row in rows], pa.list_(pa.int64())),
            "sq_distances": pa.array([[far for _, far in row] for row in rows], pa.list_(pa.float32())),
        }
    )


def test_neighbours_that_came_and_went():
    before = neighbors([(1, 0.1), (2, 0.2)], [(0, 0.3)], [], [(3, 0.4)], [(1, 0.5)], [(1, 0.1), (2, 0.2)])
    now = neighbors(
        [(5, 0.2), (7, 0.1)], [(0, 0.3), (4, 0.3)], [], [(4, 0.4)], [(6, 0.5)], [(1, 0.1), (2, 0.3)]
    )
    gone_N, new_N = np.zeros(8, bool), np.zeros(8, bool)
    gone_N[3] = new_N[6] = True
    # The same in another order; one more; none at all; one gone; one new; one farther away.
    found = have_other_neighbours(before, now, gone_N, new_N).tolist()
    assert found == [False, True, False, True, True, True]
    nothing = neighbors().slice(0, 0)
    assert have_other_neighbours(nothing, nothing, gone_N, new_N).tolist() == []


def test_samples_that_were_replaced():
    def samples(*rows):
        columns = {"caption": pa.string(), "checksum": pa.binary(), "clip_score": pa.float32()}
        return pa.Table.from_pylist(
            [dict(zip(columns, row, strict=True)) for row in rows], pa.schema(columns)
        )

    # The same bytes and others; a table's score, unknown, not a number; only its file can tell, twice.
    before = samples(
        ("a", b"1", 0.5), ("a", b"1", 0.5), ("a", None, 0.5), ("a", None, 0.5), ("a", None, None),
        ("a", None, np.nan), ("a", None, None), ("a", None, None),
    )  # fmt: skip
    now = samples(
        ("a", b"1", 0.5), ("a", b"2", 0.5), ("a", None, 0.5), ("a", None, 0.6), ("b", None, None),
        ("a", None, np.nan), ("a", None, None), ("a", None, None),
    )  # fmt: skip
    other_file = np.array([True] * 7 + [False])
    expected = [False, True, False, True, True, False, True, False]
    assert are_replaced(before, now, other_file).tolist() == expected
    assert content_columns(["uid", "clip_score", "a"], ["uid", "b", "clip_score"]) == ["clip_score"]
