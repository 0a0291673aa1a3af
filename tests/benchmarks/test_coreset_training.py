"""Training in the coreset benchmark: determinism, log, small coresets, augmentation."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.coreset import heads
from benchmarks.coreset.data import Dataset, Source, tiny
from benchmarks.coreset.heads import HeadTrainer, one_cycle
from benchmarks.coreset.recipe import RECIPES, Recipe
from benchmarks.coreset.training import Trainer
from d2prune.scores import TrainingLog

RECIPE = Recipe("small", 3, 4, 0.1, 3, "cpu")


@pytest.fixture(scope="module")
def bright_and_dark():
    """Images of two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = (rng.integers(0, 80, (24, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    return Dataset(images[:16], labels[:16], images[16:], labels[16:], 2)


@pytest.mark.parametrize("model", ["small", "resnet18"])
def test_training_is_deterministic_and_logs_all_samples(bright_and_dark, model):
    trainer = Trainer(bright_and_dark, dataclasses.replace(RECIPE, model=model))
    log = TrainingLog(16, 2)
    fitted = trainer.fit(np.arange(16), 0, log)
    assert log.logits.shape == (16, 3, 2)
    assert trainer.features(fitted).shape == (16, 64 if model == "small" else 512)
    assert 0 <= trainer.evaluate(fitted) <= 1
    again = trainer.fit(np.arange(16), 0)
    assert all(torch.equal(a, b) for a, b in zip(fitted.parameters(), again.parameters(), strict=True))


def test_coreset_smaller_than_a_batch_trains_for_all_steps(bright_and_dark):
    trainer = Trainer(bright_and_dark, dataclasses.replace(RECIPE, steps=40, batch_size=8))
    assert trainer.evaluate(trainer.fit(np.array([0, 1, 2, 3]), 0)) == 1.0


def test_augmentation_flips_and_shifts_each_image_separately(bright_and_dark):
    trainer = Trainer(bright_and_dark, RECIPE)
    x = torch.arange(1, 6 * 3 * 16 * 16 + 1, dtype=torch.float32).reshape(6, 3, 16, 16)
    torch.manual_seed(0)
    got = trainer._augment(x)
    assert got.shape == x.shape
    found = []
    for before, after in zip(x, got, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        candidates = {
            (flip, top, left): (padded[:, top : top + 16, left : left + 16]).flip(-1)
            if flip
            else padded[:, top : top + 16, left : left + 16]
            for flip in (False, True)
            for top in range(5)
            for left in range(5)
        }
        found += [name for name, candidate in candidates.items() if torch.equal(candidate, after)]
    assert len(found) == 6 and len(set(found)) > 3


def test_head_learns_is_deterministic_and_logs_all_samples():
    data = tiny(Source(None, None, 16, None))
    trainer = HeadTrainer(data, RECIPES["tiny"])
    log = TrainingLog(240, 4)
    head = trainer.fit(np.arange(240), 0, log)
    assert log.logits.shape == (240, 4, 4) and trainer.features(head).shape == (240, 128)
    assert trainer.evaluate(head) > 0.9
    again = trainer.fit(np.arange(240), 0)
    assert all(np.array_equal(a, b) for a, b in zip(head.weights, again.weights, strict=True))
    assert not np.array_equal(head.weights[0], trainer.fit(np.arange(240), 1).weights[0])


def test_gradients_of_a_head_are_those_of_torch(monkeypatch):
    monkeypatch.setattr(heads, "DROPOUT", 0.0)
    rng = np.random.default_rng(0)
    head = heads.Head(heads._initialise(5, 3, rng))
    x, labels = rng.normal(size=(7, 5)).astype(np.float32), rng.integers(0, 3, 7)
    got = heads._gradients(head, x, labels, rng)
    w1, b1, w2, b2 = weights = [torch.from_numpy(weight).requires_grad_() for weight in head.weights]
    logits = torch.relu(torch.from_numpy(x) @ w1 + b1) @ w2 + b2
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    for gradient, weight in zip(got, weights, strict=True):
        assert np.allclose(gradient, weight.grad, atol=1e-6)


def test_learning_rate_rises_for_a_fifth_and_falls_to_zero():
    rates = one_cycle(0.5, 100)
    assert rates.argmax() == 20 and rates[0] == pytest.approx(0.02) and rates.max() == pytest.approx(0.5)
    assert rates[-1] < 1e-3 and np.all(np.diff(rates[:20]) > 0) and np.all(np.diff(rates[20:]) < 0)
