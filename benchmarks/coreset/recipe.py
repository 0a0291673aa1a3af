"""Recipes: how every model of the coreset benchmark is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How every model of a benchmark is trained.

    Attributes:
        model: mlp, small or resnet18.
        steps: optimiser steps, the same for every coreset.
        batch_size: samples per step; a batch may contain a sample twice if the coreset is smaller.
        lr: peak of the one-cycle learning rate.
        epochs: evaluations of all samples, evenly spaced, in the log of the model trained on all.
        device: cpu or cuda.
    """

    model: str
    steps: int
    batch_size: int
    lr: float
    epochs: int
    device: str


# By data set, and one for a GPU. Those for CPUs are chosen to run for seconds to minutes, not for best
# accuracy. resnet18: the paper's model, batch size and optimiser, with 4,000 instead of 40,000 steps, so
# that eleven models (5 methods at 2 rates, and all samples) take 9 minutes of an H100 at 12 ms a step.
RECIPES = {
    "tiny": Recipe("mlp", 60, 32, 0.1, 4, "cpu"),
    "sentences": Recipe("mlp", 600, 64, 0.1, 10, "cpu"),
    "newsgroups": Recipe("mlp", 1000, 64, 0.5, 10, "cpu"),
    "cifar10": Recipe("small", 400, 128, 0.2, 8, "cpu"),
    "resnet18": Recipe("resnet18", 4000, 256, 0.2, 20, "cuda"),
    "cifar10_features": Recipe("mlp", 1000, 64, 0.5, 10, "cpu"),
}
