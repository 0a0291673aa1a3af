"""Scores from training logs equal the plain-Python references, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import d2prune
from d2prune.errors import UserError
from tests import oracles_scores as oracles


@st.composite
def logs(draw, min_classes=2):
    """(logits [N, E, C] float32, labels [N]): random, all equal, or with many ties."""
    n, epochs, classes = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(min_classes, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["random", "equal", "ties", "sure"]))
    logits = {
        "random": rng.normal(size=(n, epochs, classes)),
        "equal": np.ones((n, epochs, classes)),
        "ties": rng.integers(0, 2, (n, epochs, classes)),
        "sure": 200 * rng.integers(0, 2, (n, epochs, classes)),
    }[kind].astype(np.float32)
    labels = np.zeros(n, int) if draw(st.booleans()) else rng.integers(0, classes, n)
    return logits, labels


@settings(max_examples=150, deadline=None)
@given(logs())
def test_scores_equal_the_references(log):
    logits, labels = log
    p = d2prune.scores.softmax(logits)
    assert (d2prune.scores.el2n(p, labels) == oracles.el2n(p, labels)).all()
    assert (d2prune.scores.forgetting(p, labels) == oracles.forgetting(p, labels)).all()
    assert (d2prune.scores.forgetting(logits, labels) == oracles.forgetting(logits, labels)).all()
    assert (d2prune.scores.aum(logits, labels) == oracles.aum(logits, labels)).all()
    assert (d2prune.scores.entropy(p) == oracles.entropy(p, labels)).all()
    assert (d2prune.scores.margin(p) == oracles.margin(p, labels)).all()
    assert (d2prune.scores.variance_of_gradients(p) == oracles.variance_of_gradients(p, labels)).all()
    h = (logits[:, :, :1] + np.arange(3)).astype(np.float32)
    assert (d2prune.scores.grand(p, labels, h) == oracles.grand(p, labels, h)).all()


def test_every_score_is_higher_for_harder_samples():
    # Sample 0 is learned immediately, sample 1 is forgotten repeatedly, sample 2 has a wrong label.
    logits = np.zeros((3, 6, 3), np.float32)
    logits[0, :, 0] = 5
    logits[1, ::2, 0], logits[1, 1::2, 1] = 1, 1
    logits[2, :, 2] = 5
    labels = np.zeros(3, int)
    p = d2prune.scores.softmax(logits)
    for score in (
        d2prune.scores.el2n(p, labels),
        d2prune.scores.forgetting(p, labels),
        d2prune.scores.aum(logits, labels),
    ):
        assert score[0] < score[1] < score[2]
    for score in (
        d2prune.scores.entropy(p),
        d2prune.scores.margin(p),
        d2prune.scores.variance_of_gradients(p),
    ):
        assert score[0] < score[1] and score[0] == score[2]  # labels are not used
    assert d2prune.scores.forgetting(p, labels).tolist() == [0, 3, 6]


def test_one_sample_with_one_class_and_one_epoch():
    p, label = np.ones((1, 1, 1), np.float32), [0]
    assert d2prune.scores.el2n(p, label).tolist() == [0]
    assert d2prune.scores.forgetting(p, label).tolist() == [0]
    assert d2prune.scores.entropy(p).tolist() == [0]
    assert d2prune.scores.variance_of_gradients(p).tolist() == [0]
    for of_two in (lambda: d2prune.scores.aum(p, label), lambda: d2prune.scores.margin(p)):
        with pytest.raises(UserError, match="at least 2"):
            of_two()


def test_invalid_logs_are_rejected():
    p, labels = np.full((2, 3, 4), 0.25), np.array([0, 1])
    with pytest.raises(UserError, match=r"convert logits with softmax\(logits\)"):
        d2prune.scores.el2n(p * 2, labels)
    with pytest.raises(UserError, match=r"labels\[1\] is 4, expected 0 to 3"):
        d2prune.scores.el2n(p, [0, 4])
    with pytest.raises(UserError, match="one per sample"):
        d2prune.scores.aum(p, [0])
    with pytest.raises(UserError, match=r"expected floats \[N, E, C\]"):
        d2prune.scores.forgetting(p[0], labels)
    with pytest.raises(UserError, match="sample 1 has a value that is not finite"):
        d2prune.scores.aum(np.where(np.arange(2)[:, None, None] == 1, np.nan, p), labels)
    with pytest.raises(UserError, match="each at least 1"):
        d2prune.scores.entropy(np.zeros((2, 0, 4)))
    with pytest.raises(UserError, match=r"expected \[N, E, D\]"):
        d2prune.scores.grand(p, labels, np.ones((2, 2, 8)))
