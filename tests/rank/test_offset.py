"""An offset that clamps difficulties to 0 is reported: many are a warning, all are an error."""

import logging

import numpy as np
import pytest

from d2prune.errors import UserError
from d2prune.execution import InProcess
from d2prune.parts.files import RANKS, SAMPLES
from d2prune.parts.reader import Parts
from d2prune.rank.stage import check_difficulty
from d2prune.runs.driver import run


@pytest.mark.parametrize(
    ("offset", "zero", "samples", "expected"),
    [
        (0.115, 0, 100, None),
        (0.115, 5, 100, None),
        (0.115, 6, 100, "score.offset = 0.115: 6 of 100 difficulties (6.0 %) are 0"),
        (-1e300, 99, 100, "99 of 100 difficulties (99.0 %)"),
        ("auto", 1, 100, None),
        ("auto", 60, 100, None),
        ("auto", 1, 1, None),
        ("auto", 100, 100, "every score is the same"),
    ],
)
def test_the_share_of_clamped_difficulties_is_reported(caplog, offset, zero, samples, expected):
    check_difficulty(offset, zero, samples)
    found = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


@pytest.mark.parametrize("samples", [1, 100])
def test_an_offset_that_clamps_every_difficulty_is_an_error(samples):
    with pytest.raises(UserError, match=r"score\.offset: found -5, which makes every difficulty"):
        check_difficulty(-5.0, samples, samples)


def test_a_run_counts_the_difficulties_that_are_zero(configure):
    with pytest.raises(UserError, match=r"score\.offset: found -9, which makes every difficulty"):
        run(configure(score__offset=-9.0), InProcess(), stop_after="rank")


def test_the_method_score_does_not_clamp(configure):
    config = configure(score__offset=-9.0, select={"fraction": 0.3, "method": "score"})
    manifests = run(config, InProcess(), stop_after="rank").manifests
    parts = Parts(config.work_dir, {name: found.units for name, found in manifests.items()})
    score = parts.column(SAMPLES, "clip_score").to_numpy()
    expected = np.rint((score.astype(np.float64) - 9).astype(np.float32) * 2.0**40)
    assert (parts.column(RANKS, "selection_score").to_numpy() == expected).all() and expected.max() < 0
