"""Training of small heads on vectors: one hidden layer, by hand in numpy.

The same recipe as `training.Trainer` (SGD with Nesterov momentum, a one-cycle learning rate, equal
steps for coresets of every size). A step of a head takes a third of a millisecond of arithmetic; in
torch, dispatch and autograd take three times as long as that. Invariant: the result depends on the
inputs, the recipe and the seed only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.coreset.data import Dataset
from benchmarks.coreset.recipe import Recipe
from d2prune.scores import TrainingLog

Float32 = NDArray[np.float32]

WIDTH, DROPOUT, MOMENTUM, WEIGHT_DECAY = 128, 0.2, 0.9, 5e-4


@dataclass
class Head:
    """Weights of a fitted head: vectors [N, D] to logits [N, C] over `WIDTH` hidden units."""

    weights: list[Float32]

    def outputs(self, inputs: Float32) -> tuple[Float32, Float32]:
        """Return (logits, hidden units)."""
        w1, b1, w2, b2 = self.weights
        hidden = np.maximum(inputs @ w1 + b1, 0.0)
        return hidden @ w2 + b2, hidden


class HeadTrainer:
    """Fits and tests heads on one data set; the counterpart of `training.Trainer` for vectors."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.recipe = data, recipe

    def fit(self, indices: NDArray[np.int64], seed: int, log: TrainingLog | None = None) -> Head:
        """Train a new head on the samples `indices`, as `training.Trainer.fit` does."""
        recipe, inputs, labels = self.recipe, self.data.train, self.data.train_labels
        rng = np.random.default_rng(seed)
        head = Head(_initialise(inputs.shape[1], self.data.n_classes, rng))
        velocity = [np.zeros_like(weight) for weight in head.weights]
        waiting = indices[:0]
        every = max(1, recipe.steps // recipe.epochs)
        for step, lr in enumerate(one_cycle(recipe.lr, recipe.steps)):
            while len(waiting) < recipe.batch_size:
                waiting = np.concatenate([waiting, rng.permutation(indices)])
            batch, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
            for weight, speed, gradient in zip(
                head.weights, velocity, _gradients(head, inputs[batch], labels[batch], rng), strict=True
            ):
                gradient += WEIGHT_DECAY * weight
                speed *= MOMENTUM
                speed += gradient
                weight -= lr * (gradient + MOMENTUM * speed)
            if log is not None and (step + 1) % every == 0 and log.n_epochs < recipe.epochs:
                log.record(np.arange(len(inputs)), head.outputs(inputs)[0], labels)
                log.end_epoch()
        return head

    def features(self, head: Head) -> Float32:
        """Return the hidden units of every training sample, float32 [N, WIDTH]."""
        return head.outputs(self.data.train)[1]

    def evaluate(self, head: Head) -> float:
        """Return the accuracy on the test set."""
        return float((head.outputs(self.data.test)[0].argmax(1) == self.data.test_labels).mean())


def one_cycle(peak: float, steps: int) -> Float32:
    """Return the learning rate of each step: cosine from peak / 25 up for a fifth, then down to 0."""
    rise = max(1, round(0.2 * steps))
    up = peak * (1.04 - 0.96 * np.cos(np.pi * np.arange(rise) / rise)) / 2
    down = peak * (1 + np.cos(np.pi * np.arange(steps - rise) / max(1, steps - rise))) / 2
    return np.concatenate([up, down]).astype(np.float32)


def _initialise(width: int, n_classes: int, rng: np.random.Generator) -> list[Float32]:
    """Return random weights in +-1 / sqrt(inputs), as torch's linear layers have."""
    shapes = [((width, WIDTH), width), ((WIDTH,), width), ((WIDTH, n_classes), WIDTH), ((n_classes,), WIDTH)]
    return [(rng.uniform(-1, 1, shape) / np.sqrt(inputs)).astype(np.float32) for shape, inputs in shapes]


def _gradients(
    head: Head, x_BD: Float32, label_B: NDArray[np.int64], rng: np.random.Generator
) -> list[Float32]:
    """Return the gradients of the mean cross-entropy of a batch, with dropout on the hidden units."""
    w1, b1, w2, b2 = head.weights
    before_BH = x_BD @ w1 + b1
    pass_BH = (rng.random(before_BH.shape, np.float32) >= DROPOUT) & (before_BH > 0)
    hidden_BH = np.where(pass_BH, before_BH, np.float32(0)) * np.float32(1 / (1 - DROPOUT))
    delta_BC = hidden_BH @ w2 + b2
    delta_BC -= delta_BC.max(1, keepdims=True)
    np.exp(delta_BC, out=delta_BC)
    delta_BC /= delta_BC.sum(1, keepdims=True)
    delta_BC[np.arange(len(label_B)), label_B] -= 1
    delta_BC /= len(label_B)
    back_BH = np.where(pass_BH, delta_BC @ w2.T, np.float32(0)) * np.float32(1 / (1 - DROPOUT))
    return [x_BD.T @ back_BH, back_BH.sum(0), hidden_BH.T @ delta_BC, delta_BC.sum(0)]
