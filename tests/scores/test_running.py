"""Logs that keep running sums: the bits of logs that keep every epoch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import d2prune
from d2prune.errors import ArgumentError, UserError
from d2prune.scores import TrainingLog
from d2prune.scores.running import NAMES


def record(log, seed, n, classes, epochs, batch):
    """Record random logits; some samples twice an epoch, the last of which counts."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    for _ in range(epochs):
        order = np.concatenate([rng.integers(0, n, 3), rng.permutation(n)])
        logits = (rng.normal(size=(len(order), classes)) * 4).astype(np.float32)
        for start in range(0, len(order), batch):
            index = order[start : start + batch]
            log.record(index, logits[start : start + batch], labels[index])
        log.end_epoch()
    return log


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 20), st.integers(2, 11), st.integers(1, 5), st.integers(1, 9))
def test_running_sums_have_the_bits_of_the_whole_log(seed, n, classes, epochs, batch):
    whole = record(TrainingLog(n, classes), seed, n, classes, epochs, batch)
    running = record(TrainingLog(n, classes, scores=NAMES), seed, n, classes, epochs, batch)
    assert running.n_epochs == whole.n_epochs and (running.labels == whole.labels).all()
    for name in NAMES:
        function = getattr(d2prune.scores, name)
        assert function(running).tobytes() == function(whole).tobytes(), name
        on_logits = name in ("aum", "forgetting")
        values = whole.logits if on_logits else whole.probabilities
        arrays = (values,) if name in ("entropy", "margin") else (values, whole.labels)
        assert function(*arrays).tobytes() == function(whole).tobytes(), name


def test_saved_sums_continue(tmp_path):
    log = record(TrainingLog(9, 4, scores=["aum", "forgetting"]), 0, 9, 4, 2, 4)
    log.save(tmp_path / "log.npz")
    again = TrainingLog.load(tmp_path / "log.npz")
    assert again.scores == ("aum", "forgetting") and again.n_epochs == 2
    for other in (log, again):
        other.record(np.arange(9), np.eye(4, dtype=np.float32)[np.arange(9) % 4], log.labels)
        other.end_epoch()
    for name in again.scores:
        assert again.score(name).tobytes() == log.score(name).tobytes()
    assert (tmp_path / "log.npz").stat().st_size < 3_000


@pytest.mark.parametrize("name", ["grand", "variance_of_gradients"])
def test_other_scores_need_every_epoch(name):
    log = record(TrainingLog(3, 2, scores=["aum"]), 0, 3, 2, 1, 3)
    with pytest.raises(ArgumentError, match=f"{name}: found a log that keeps aum only"):
        getattr(d2prune.scores, name)(log)
    with pytest.raises(ArgumentError, match=f"found scores '{name}'; expected some of aum, el2n"):
        TrainingLog(3, 2, scores=[name])


def test_wrong_uses_are_one_line(tmp_path):
    running = TrainingLog(2, 2, scores=["el2n"])
    with pytest.raises(ArgumentError, match="no epoch is complete"):
        d2prune.scores.el2n(running)
    record(running, 0, 2, 2, 1, 2)
    with pytest.raises(ArgumentError, match="keeps el2n only; expected one that keeps logits"):
        _ = running.logits
    with pytest.raises(ArgumentError, match="labels beside a TrainingLog"):
        d2prune.scores.el2n(record(TrainingLog(2, 2), 0, 2, 2, 1, 2), [0, 1])
    with pytest.raises(ArgumentError, match="at least one, or None"):
        TrainingLog(2, 2, scores=[])
    with pytest.raises(ArgumentError, match="sample 1 has logits that are not finite"):
        running.record([0, 1], [[0, 1], [np.nan, 1]], running.labels)
    np.savez(
        tmp_path / "bad.npz", version=1, labels=np.zeros(2, int), epochs_classes=[1, 2], **{"aum.x": [1]}
    )
    with pytest.raises(UserError, match="not a training log"):
        TrainingLog.load(tmp_path / "bad.npz")
