"""Training logs: complete epochs only, unchanged by saving and loading, clear errors."""

import doctest

import numpy as np
import pytest
import torch

from d2prune.errors import UserError
from d2prune.scores import TrainingLog, training_log


def test_docstring_example_runs():
    failures, tests = doctest.testmod(training_log)
    assert (failures, tests > 2) == (0, True)


def test_training_loop_is_recorded_by_sample(tmp_path):
    n, classes = 50, 4
    images, labels = torch.randn(n, 8), torch.arange(n) % classes
    model = torch.nn.Linear(8, classes).to(torch.bfloat16)
    log = TrainingLog(n, classes)
    expected = []
    for _ in range(3):
        with torch.no_grad():
            expected.append(model(images.bfloat16()).float().numpy().copy())
        for index in torch.randperm(n).split(16):
            log.record(index, model(images[index].bfloat16()), labels[index])
        log.end_epoch()
        with torch.no_grad():
            model.weight += 1
    assert log.n_epochs == 3
    np.testing.assert_allclose(log.logits, np.stack(expected, axis=1), rtol=0.05, atol=0.1)
    assert (log.labels == labels.numpy()).all()
    assert (abs(log.probabilities.sum(-1) - 1) < 1e-6).all()

    log.save(tmp_path / "log.npz")
    again = TrainingLog.load(tmp_path / "log.npz")
    assert (again.logits == log.logits).all() and (again.labels == log.labels).all()
    again.record(np.arange(n), np.ones((n, classes)), labels)
    again.end_epoch()
    assert again.logits.shape == (n, 4, classes) and (again.logits[:, 3] == 1).all()


def test_last_record_of_a_sample_counts():
    log = TrainingLog(1, 2)
    log.record([0], [[1.0, 2.0]], [1])
    log.record([0], [[3.0, 4.0]], [1])
    log.end_epoch()
    assert log.logits.tolist() == [[[3.0, 4.0]]]


def test_invalid_records_are_rejected():
    log = TrainingLog(3, 2)
    with pytest.raises(UserError, match="no epoch is complete"):
        _ = log.logits
    log.record([0, 2], np.zeros((2, 2)), [0, 1])
    with pytest.raises(UserError, match="epoch 0 has no logits of 1 samples, the first is sample 1"):
        log.end_epoch()
    with pytest.raises(UserError, match="the same at every epoch"):
        log.record([0], np.zeros((1, 2)), [1])
    with pytest.raises(UserError, match=r"got labels \[2\], expected 0 to 1"):
        log.record([1], np.zeros((1, 2)), [2])
    with pytest.raises(UserError, match="expected 0 to 2"):
        log.record([3], np.zeros((1, 2)), [0])
    with pytest.raises(UserError, match=r"expected \[B\], \[B, 2\] and \[B\]"):
        log.record([1], np.zeros((1, 3)), [0])
    with pytest.raises(UserError, match="at least 1 of each"):
        TrainingLog(0, 2)


def test_file_that_is_no_training_log_is_rejected(tmp_path):
    np.savez(tmp_path / "pickled.npz", version=np.array([{}], object))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", logits=np.zeros(3))
    for name in ("pickled.npz", "text.npz", "other.npz", "missing.npz"):
        with pytest.raises(UserError, match="not a training log"):
            TrainingLog.load(tmp_path / name)
