"""The teacher: a small CLIP, trained on curated icon sets, that scores and embeds the pool.

Reads the teacher's tars; writes an open_clip configuration and weights to `DIR/teacher-model`, a
folder that `embed.model` accepts. It has never seen a set of the pool or of a test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from benchmarks.icons import data, model
from d2prune import store
from d2prune.embed.model.sources import import_open_clip

NAME = "icon-teacher"
PIXELS = 32
_VOCABULARY = 49_408


@dataclass(frozen=True)
class Teacher:
    """Size and training of a teacher.

    Attributes:
        steps: optimiser steps.
        channels: of the image tower's stem.
        pairs: share of its sets that it is trained on.
        sets: beginnings of the names of the teacher's sets that it is trained on; empty for all.
    """

    steps: int = 900
    channels: int = 16
    pairs: float = 1.0
    sets: tuple[str, ...] = ()


def train(folder: Path, out: Path, teacher: Teacher, seed: int = 0) -> None:
    """Train a teacher on the tars in `folder` and write it to `out`, unless it is there."""
    if (out / "weights.safetensors").exists():
        return
    icons = data.load(folder, "teacher", PIXELS)
    (texts,), used = model.renumber([data.tokenize(icons.captions)])
    recipe = model.Recipe(steps=teacher.steps, lr=2e-3)
    config = model.resnet(len(used), PIXELS, teacher.channels)
    open_clip = import_open_clip()
    rows = choose(icons.sets, teacher, seed)
    found = model.fit(
        lambda: open_clip.model.CLIP(**config), torch.from_numpy(icons.images), texts, rows, recipe, seed
    )
    weights = {name: tensor.contiguous() for name, tensor in found.state_dict().items()}
    # A token that never occurred in training has no meaning: 0.
    trained = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = torch.zeros(_VOCABULARY, trained.shape[1])
    weights["token_embedding.weight"][torch.from_numpy(used)] = trained
    full = model.resnet(_VOCABULARY, PIXELS, teacher.channels)
    store.write_bytes(str(out / f"{NAME}.json"), json.dumps(full, indent=1).encode())
    store.write_bytes(str(out / "weights.safetensors"), save(weights))


def choose(names: Sequence[str], teacher: Teacher, seed: int) -> NDArray[np.int64]:
    """Return the rows that a teacher is trained on.

    Args:
        names: N names of icon sets, one per pair.
        teacher: the teacher.
        seed: of the share.

    Raises:
        ValueError: no pair is of its sets.
    """
    usable = np.flatnonzero([name.startswith(teacher.sets or ("",)) for name in names])
    if not len(usable):
        raise ValueError(f"found no pair of the sets {', '.join(map(repr, teacher.sets))}; expected some")
    return np.random.default_rng(seed).permutation(usable)[: round(teacher.pairs * len(usable))]


TEACHERS = {
    "base": Teacher(),
    "weak": Teacher(steps=300, pairs=0.25),
    "distant": Teacher(steps=300, sets=("fluent-emoji", "fluent-color", "openmoji", "game-icons")),
    "strong": Teacher(steps=2700, channels=24),
}
"""The teachers of the benchmark by name.

`distant` has about as many pairs as `weak`, all of them emoji, coloured icons and drawings of games: the
tests are nine tenths plain icons of interfaces. `strong` takes five times as long as `base`.
"""
