"""A small open_clip model, trained from scratch on a subset and tested on clean pairs.

ResNet image tower, transformer text tower, CLIP's loss (Radford et al. 2021) as in open_clip, AdamW
with warm-up and cosine decay, the same number of steps for every subset. The vocabulary is CLIP's,
reduced to the tokens that occur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.image_text.data import PIXELS, Drawings, common_categories, one_per_group
from d2prune.embed.model.sources import import_open_clip

open_clip = import_open_clip()

CONTEXT = 16
_EVALUATION_BATCH = 200
_MAX_LOGIT_SCALE = math.log(100)
# Test drawings that a category must have to be a class of the zero-shot test.
_MIN_CLASS_SIZE = 10


@dataclass(frozen=True)
class Recipe:
    """How every model of the benchmark is trained.

    Attributes:
        steps: optimiser steps, the same for every subset.
        batch_size: pairs per step; a batch may contain a pair twice if the subset is smaller.
        lr: peak learning rate of AdamW.
        size: width and height of the model's input in pixels.
        width: channels of the ResNet's stem; the text tower is 4 times as wide.
    """

    steps: int
    batch_size: int
    lr: float
    size: int
    width: int


class Trainer:
    """Trains models on subsets of a pool, and evaluates them on its test set."""

    def __init__(self, pool: Drawings, tested: Drawings, recipe: Recipe) -> None:
        self.recipe = recipe
        classes = common_categories(tested.categories, _MIN_CLASS_SIZE)
        pairs = one_per_group(tested)
        tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        texts = (pool.captions, pairs.captions, [f"clip art, {name}" for name in classes])
        parts = [tokenizer(part).numpy() for part in texts]
        # Renumbering keeps the order: open_clip finds the end of a text by its highest token
        # number.
        used, numbers = np.unique(np.concatenate(parts), return_inverse=True)
        self._vocabulary = len(used)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        self._texts, self._pair_texts, self._class_texts = (
            torch.from_numpy(part) for part in np.split(numbers.reshape(-1, CONTEXT), cuts)
        )
        self._images, self._pair_images = self._to_pixels(pool), self._to_pixels(pairs)
        rows = [row for row, name in enumerate(tested.categories) if name in classes]
        self._class_images = self._to_pixels(tested.take(np.array(rows)))
        self._class_labels = torch.tensor([classes.index(tested.categories[row]) for row in rows])

    @property
    def facts(self) -> dict[str, int]:
        """The size of the test set."""
        return {
            "pairs": len(self._pair_texts),
            "class_images": len(self._class_labels),
            "classes": len(self._class_texts),
        }

    def fit(self, indices: NDArray[np.int64], seed: int) -> Any:
        """Train a new model on the pairs `indices`, shuffled epoch by epoch."""
        recipe = self.recipe
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**self._make_config()).train()
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
        chosen = torch.from_numpy(indices)
        waiting = chosen[:0]
        for _ in range(recipe.steps):
            while len(waiting) < recipe.batch_size:
                waiting = torch.cat([waiting, chosen[torch.randperm(len(chosen))]])
            batch, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
            with self._autocast():
                loss = loss_of(*model(self._shift(self._images[batch]), self._texts[batch]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
        return model.eval()

    @torch.inference_mode()
    def evaluate(self, model: Any) -> dict[str, float]:
        """Return the recalls of `recalls`, and the zero-shot accuracy averaged over classes."""
        image = self._encode_images(model, self._pair_images)
        text = model.encode_text(self._pair_texts, normalize=True)
        cosine = image @ text.T
        figures = recalls(cosine.numpy())
        classes = model.encode_text(self._class_texts, normalize=True)
        predicted = (self._encode_images(model, self._class_images) @ classes.T).argmax(1)
        right = predicted == self._class_labels
        shares = [right[self._class_labels == label].float().mean().item() for label in range(len(classes))]
        return {**figures, "zero_shot": float(np.mean(shares))}

    def _autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())

    def _make_config(self) -> dict[str, Any]:
        width, size = self.recipe.width, self.recipe.size
        return {
            "embed_dim": 128,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": width, "head_width": 64, "image_size": size},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": self._vocabulary,
                "width": 4 * width,
                "heads": 4,
                "layers": 1,
            },
        }

    def _to_pixels(self, drawings: Drawings) -> torch.Tensor:
        """Return [N, 3, size, size], white as 0 and black as -1, so that zero padding is white."""
        pixels = (torch.from_numpy(drawings.images).permute(0, 3, 1, 2).float() - 255) / 255
        size = self.recipe.size
        if size != PIXELS:
            pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return pixels.contiguous(memory_format=torch.channels_last)

    def _shift(self, x: torch.Tensor) -> torch.Tensor:
        """Shift the batch by up to an eighth. No flips, since drawings contain text and arrows."""
        reach, size = self.recipe.size // 8, self.recipe.size
        top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
        return functional.pad(x, (reach,) * 4)[:, :, top : top + size, left : left + size]

    def _encode_images(self, model: Any, images: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [model.encode_image(part, normalize=True) for part in images.split(_EVALUATION_BATCH)]
        )


def recalls(cosine_PP: NDArray[np.float32]) -> dict[str, float]:
    """Return recall at 1, 5 and 10 of captions by image and of images by caption, averaged.

    Args:
        cosine_PP: images x captions, pairs on the diagonal. Ties count as nearer than the own
            caption, so that a constant model has recall 0.
    """
    own = np.diag(cosine_PP)
    rank_of_image = (cosine_PP >= own[:, None]).sum(1)
    rank_of_text = (cosine_PP >= own[None]).sum(0)
    return {
        f"recall_{k}": float(((rank_of_image <= k).mean() + (rank_of_text <= k).mean()) / 2)
        for k in (1, 5, 10)
    }
