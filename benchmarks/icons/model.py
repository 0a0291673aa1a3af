"""Small CLIPs, trained from scratch: CLIP's loss as in open_clip, AdamW, warm-up and cosine decay.

The vocabulary is CLIP's, reduced to the tokens that occur, in the same order: open_clip finds the end
of a text by its highest token number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.icons.data import CONTEXT
from d2prune.embed.model.sources import import_open_clip

_EMBED_DIM = 128
_EVALUATION_BATCH = 500
_MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: optimiser steps, the same for every subset.
        batch_size: pairs per step; a batch may contain a pair twice if the subset is smaller.
        lr: peak learning rate of AdamW.
    """

    steps: int = 300
    batch_size: int = 512
    lr: float = 5e-3


class Student(nn.Module):
    """A CLIP for images of 24 x 24: four convolutions, and a sum of token vectors for texts.

    Names of icons are a few words whose order matters little. In 150 steps on right captions, one
    transformer block in place of the sum reached a tenth of its recall, in twice the time.

    Args:
        vocabulary: number of tokens; 0 is padding.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        channels = 3
        layers: list[nn.Module] = []
        for wide, stride in ((24, 2), (48, 1), (64, 2), (96, 2)):
            layers += [
                nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            channels = wide
        self.visual = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 3 * channels, _EMBED_DIM))
        self.tokens = nn.Embedding(vocabulary, _EMBED_DIM)
        nn.init.normal_(self.tokens.weight, std=0.005)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_text(self, texts: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Return the vectors of texts, [B, D]."""
        summed = (self.tokens(texts) * (texts != 0).unsqueeze(-1)).sum(1)
        return functional.normalize(summed, dim=-1) if normalize else summed


def resnet(vocabulary: int, pixels: int, channels: int) -> dict[str, Any]:
    """Return open_clip's configuration of a CLIP with a small ResNet and one transformer block."""
    vision = {"layers": [1, 1, 1, 1], "width": channels, "head_width": 64, "image_size": pixels}
    text = {"context_length": CONTEXT, "vocab_size": vocabulary, "width": 64, "heads": 4, "layers": 1}
    return {"embed_dim": _EMBED_DIM, "vision_cfg": vision, "text_cfg": text}


def fit(
    make_model: Callable[[], Any], images: torch.Tensor, texts: torch.Tensor, rows: NDArray[np.int64],
    recipe: Recipe, seed: int,
) -> Any:  # fmt: skip
    """Train a new model on the pairs `rows`, shuffled epoch by epoch.

    Args:
        make_model: returns a model with initial weights.
        images: of `to_pixels`.
        texts: tokens, int64 [N, CONTEXT].
        rows: of the pairs to train on.
        recipe: the training.
        seed: of weights, order and shifts.
    """
    open_clip = import_open_clip()
    torch.manual_seed(seed)
    model = make_model().train()
    model.visual = model.visual.to(memory_format=torch.channels_last)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.2}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
    )
    loss_of = open_clip.loss.ClipLoss()
    chosen = torch.from_numpy(rows)
    waiting = chosen[:0]
    for _ in range(recipe.steps):
        while len(waiting) < recipe.batch_size:
            waiting = torch.cat([waiting, chosen[torch.randperm(len(chosen))]])
        batch, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
        with autocast():
            image = functional.normalize(model.visual(_shift(to_pixels(images[batch]))), dim=-1)
            text = model.encode_text(texts[batch], normalize=True)
            loss = loss_of(image, text, model.logit_scale.exp())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
    return model.eval()


@torch.inference_mode()
def encode_images(model: Any, images: torch.Tensor) -> NDArray[np.float32]:
    """Return unit rows of images uint8 [N, H, W, 3]."""
    with autocast():
        parts = [model.visual(to_pixels(part)).float() for part in images.split(_EVALUATION_BATCH)]
    return functional.normalize(torch.cat(parts), dim=-1).numpy()


@torch.inference_mode()
def encode_texts(model: Any, texts: torch.Tensor) -> NDArray[np.float32]:
    """Return unit rows of tokens."""
    with autocast():
        parts = [model.encode_text(part).float() for part in texts.split(_EVALUATION_BATCH)]
    return functional.normalize(torch.cat(parts), dim=-1).numpy()


def autocast() -> Any:
    """Return the context in which models compute: bfloat16 where the CPU has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images [B, H, W, 3] as the pipeline gives them to a model, [B, 3, H, W]."""
    open_clip = import_open_clip()
    mean, deviation = (
        255 * torch.tensor(x) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    # The permutation of a contiguous array is in channels_last.
    return ((images.float() - mean) / deviation).permute(0, 3, 1, 2)


def _shift(x: torch.Tensor) -> torch.Tensor:
    """Shift the batch by up to an eighth. No flips, since icons contain text and arrows."""
    size = x.shape[-1]
    reach = size // 8
    top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
    return functional.pad(x, (reach,) * 4, mode="replicate")[:, :, top : top + size, left : left + size]


def renumber(parts: list[torch.Tensor]) -> tuple[list[torch.Tensor], NDArray[np.int64]]:
    """Return token arrays with the tokens that occur renumbered from 0, and CLIP's number of each."""
    used, numbers = np.unique(torch.cat(parts).numpy(), return_inverse=True)
    cuts = np.cumsum([len(part) for part in parts])[:-1]
    split = np.split(numbers.reshape(-1, CONTEXT), cuts)
    return [torch.from_numpy(part) for part in split], used
