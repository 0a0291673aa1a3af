"""The tars of `pool` as arrays, decoded once and kept beside them.

Reads `DIR/{split}/*.tar`; writes `DIR/{split}-{pixels}.npz`. Row order is that of the tars.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.icons import pool
from benchmarks.icons.sets import Split
from d2prune import store
from d2prune.embed.model.sources import import_open_clip

CONTEXT = 16
"""Tokens of a caption, including start and end."""
# Words that name a style, a size or a number: they describe no object.
_STYLES = frozenset(
    "outline outlined filled fill line linear bold broken duotone light thin sharp round rounded regular "
    "solid alt two tone twotone variant square circle rectangle icon logo off with and the small big "
    "large medium mini micro left right up down top bottom".split()
)
_MIN_WORD = 3


@dataclass(frozen=True)
class Icons:
    """Pairs of a split.

    Attributes:
        images: uint8 [N, pixels, pixels, 3].
        captions: N captions.
        uids: N uids, as `d2prune` knows them.
        sets: N names of icon sets.
        wrong: bool [N], whether the caption was planted.
    """

    images: NDArray[np.uint8]
    captions: list[str]
    uids: NDArray[np.str_]
    sets: list[str]
    wrong: NDArray[np.bool_]


def load(folder: Path, split: Split, pixels: int) -> Icons:
    """Return a split with images of `pixels` x `pixels`, by PIL's bicubic filter as in the pipeline."""
    stored = folder / f"{split}-{pixels}.npz"
    if not stored.exists():
        images, captions, records = [], [], []
        for png, text, record in pool.read(folder / split):
            images.append(resize(png, pixels))
            captions.append(text)
            records.append(record)
        sink = io.BytesIO()
        np.savez(
            sink, images=np.stack(images), captions=captions, uids=[r["uid"] for r in records],
            sets=[r["set"] for r in records], wrong=[r["planted_wrong"] for r in records],
        )  # fmt: skip
        store.write_bytes(str(stored), sink.getvalue())
    with np.load(stored) as arrays:
        return Icons(
            arrays["images"], arrays["captions"].tolist(), arrays["uids"], arrays["sets"].tolist(),
            arrays["wrong"],
        )  # fmt: skip


def resize(png: bytes, pixels: int) -> NDArray[np.uint8]:
    """Decode an image and resize it."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BICUBIC), np.uint8)


def tokenize(captions: list[str]) -> torch.Tensor:
    """Return CLIP's tokens of captions, int64 [N, CONTEXT]; equal captions are tokenised once."""
    tokenizer = import_open_clip().SimpleTokenizer(context_length=CONTEXT)
    distinct, inverse = np.unique(np.array(captions, dtype=object).astype(str), return_inverse=True)
    return tokenizer(distinct.tolist())[torch.from_numpy(inverse)]


def frequent_words(captions: list[str], n_words: int = 100) -> list[str]:
    """Return the words of most captions, without words of style, place and size, sorted.

    A caption counts for a word once. Of equally frequent words, the first in the alphabet is taken.
    """
    counts = Counter(word for text in captions for word in set(text.split()))
    words = [word for word in counts if len(word) >= _MIN_WORD and word.isalpha() and word not in _STYLES]
    return sorted(sorted(words, key=lambda word: (-counts[word], word))[:n_words])


def label(captions: list[str], words: list[str]) -> NDArray[np.int64]:
    """Return the number of the only word of `words` that each caption contains, int64 [N]; else -1."""
    number = {word: i for i, word in enumerate(words)}
    found = [{number[word] for word in text.split() if word in number} for text in captions]
    return np.array([next(iter(labels)) if len(labels) == 1 else -1 for labels in found], np.int64)
