"""What a student is tested on: retrieval over distinct captions, and zero-shot classification by words.

All icons of a split are tested. Pure functions of unit rows. N icons, C distinct captions, W words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.icons import data, model

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_BLOCK = 1024


class Test:
    """The icons of a split, tokenised once.

    Args:
        icons: with their own captions.
    """

    __test__ = False

    def __init__(self, icons: data.Icons) -> None:
        self.images = torch.from_numpy(icons.images)
        captions, self._caption_N = np.unique(np.array(icons.captions).astype(str), return_inverse=True)
        self.words = data.frequent_words(icons.captions)
        self._label_N = data.label(icons.captions, self.words)
        self.texts = data.tokenize([*captions.tolist(), *self.words])
        self._n_captions = len(captions)

    def evaluate(self, trained: Any, texts: torch.Tensor) -> dict[str, float]:
        """Return `recall_1`, `recall_10` and `zero_shot` of a model.

        Args:
            trained: the model.
            texts: `self.texts`, with the model's token numbers.
        """
        image_ND = model.encode_images(trained, self.images)
        text_TD = model.encode_texts(trained, texts)
        text_CD, word_WD = text_TD[: self._n_captions], text_TD[self._n_captions :]
        ranks = retrieval_ranks(image_ND, text_CD, self._caption_N)
        recalls = {f"recall_{k}": recall(ranks, k) for k in (1, 10)}
        return recalls | {"zero_shot": zero_shot(image_ND, word_WD, self._label_N)}


def retrieval_ranks(image_ND: Float32, text_CD: Float32, caption_N: Int64) -> tuple[Int64, Int64]:
    """Return the rank of each icon's caption among the captions, and of each caption's best icon.

    Ranks count from 1. Ties count as nearer than the right answer, so that a constant model is never
    right.

    Args:
        image_ND: unit rows of icons.
        text_CD: unit rows of distinct captions; each has an icon.
        caption_N: the caption of each icon.

    Returns:
        int64 [N], the number of captions at least as near as the icon's own; int64 [C], one more than
        the number of other captions' icons at least as near as the nearest icon with that caption.
    """
    own_N = np.empty(len(image_ND), np.float32)
    by_image_N = np.empty(len(image_ND), np.int64)
    for start in range(0, len(image_ND), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosine_BC = image_ND[rows] @ text_CD.T
        own_N[rows] = cosine_BC[np.arange(len(cosine_BC)), caption_N[rows]]
        by_image_N[rows] = (cosine_BC >= own_N[rows, None]).sum(1)
    best_C = np.full(len(text_CD), -np.inf, np.float32)
    np.maximum.at(best_C, caption_N, own_N)
    by_text_C = np.ones(len(text_CD), np.int64)
    for start in range(0, len(image_ND), _BLOCK):
        rows = slice(start, start + _BLOCK)
        near_BC = image_ND[rows] @ text_CD.T >= best_C
        near_BC[np.arange(len(near_BC)), caption_N[rows]] = False
        by_text_C += near_BC.sum(0)
    return by_image_N, by_text_C


def recall(ranks: tuple[Int64, Int64], k: int) -> float:
    """Return recall at k, the mean of both directions."""
    return float(np.mean([(rank <= k).mean() for rank in ranks]))


def zero_shot(image_ND: Float32, word_WD: Float32, label_N: Int64) -> float:
    """Return the accuracy over the icons with a label, averaged over labels."""
    found = np.flatnonzero(label_N >= 0)
    if not len(found):
        return 0.0
    right = (image_ND[found] @ word_WD.T).argmax(1) == label_N[found]
    shares = [right[label_N[found] == label].mean() for label in np.unique(label_N[found])]
    return float(np.mean(shares))
