"""A small open_clip model, trained from scratch on a subset of the noisy pool and tested on clean pairs.

ResNet image tower, transformer text tower, CLIP's loss (Radford et al. 2021) as open_clip has it,
AdamW, a warm-up and a cosine, the same number of steps for every subset. The vocabulary is CLIP's,
cut down to the tokens that occur.
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
# Test drawings a folder must have to be a class of the zero-shot test.
_A_CLASS = 10


@dataclass(frozen=True)
class Recipe:
    """How every model of the benchmark is trained.

    Attributes:
        steps: optimiser steps, the same for every subset.
        batch_size: pairs per step; a smaller subset is drawn from with repeats.
        lr: peak rate of AdamW.
        size: pixels on a side that drawings are shrunk to.
        width: of the ResNet's stem and, times 4, of the text tower.
    """

    steps: int
    batch_size: int
    lr: float
    size: int
    width: int


class Trainer:
    """A pool and its test set as tensors, and models trained on parts of the pool."""

    def __init__(self, pool: Drawings, tested: Drawings, recipe: Recipe) -> None:
        self.recipe = recipe
        classes = common_categories(tested.categories, _A_CLASS)
        pairs = one_per_group(tested)
        tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        texts = (pool.captions, pairs.captions, [f"clip art, {name}" for name in classes])
        parts = [tokenizer(part).numpy() for part in texts]
        # Order is kept, so that the end of a text stays the highest number, by which open_clip finds it.
        used, numbers = np.unique(np.concatenate(parts), return_inverse=True)
        self._vocabulary = len(used)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        self._texts, self._pair_texts, self._class_texts = (
            torch.from_numpy(part) for part in np.split(numbers.reshape(-1, CONTEXT), cuts)
        )
        self._images, self._pair_images = self._pixels(pool), self._pixels(pairs)
        of_class = [row for row, name in enumerate(tested.categories) if name in classes]
        self._class_images = self._pixels(tested.take(np.array(of_class)))
        self._class_labels = torch.tensor([classes.index(tested.categories[row]) for row in of_class])

    @property
    def facts(self) -> dict[str, int]:
        """What is tested on."""
        return {
            "pairs": len(self._pair_texts),
            "class_images": len(self._class_labels),
            "classes": len(self._class_texts),
        }

    def fit(self, indices: NDArray[np.int64], seed: int) -> Any:
        """Train on the pairs `indices`, drawn epoch by epoch."""
        recipe = self.recipe
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**self._config()).train()
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
            with self._precision():
                loss = loss_of(*model(self._shifted(self._images[batch]), self._texts[batch]))
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
        """Retrieval over the clean pairs, both ways averaged, and zero-shot accuracy, the mean over classes."""
        image, text = (
            self._image_rows(model, self._pair_images),
            model.encode_text(self._pair_texts, normalize=True),
        )
        cosine = image @ text.T
        figures = recalls(cosine.numpy())
        classes = model.encode_text(self._class_texts, normalize=True)
        right = (self._image_rows(model, self._class_images) @ classes.T).argmax(1) == self._class_labels
        shares = [right[self._class_labels == label].float().mean().item() for label in range(len(classes))]
        return {**figures, "zero_shot": float(np.mean(shares))}

    def _precision(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())

    def _config(self) -> dict[str, Any]:
        width = self.recipe.width
        return {
            "embed_dim": 128,
            "vision_cfg": {"layers": [1, 1, 1, 1], "width": width, "head_width": 64, "image_size": self.recipe.size},
            "text_cfg": {
                "context_length": CONTEXT, "vocab_size": self._vocabulary, "width": 4 * width, "heads": 4, "layers": 1
            },
        }  # fmt: skip

    def _pixels(self, drawings: Drawings) -> torch.Tensor:
        """[N, 3, size, size], white is 0 and black -1 or so: a shift brings in white."""
        pixels = (torch.from_numpy(drawings.images).permute(0, 3, 1, 2).float() - 255) / 255
        size = self.recipe.size
        if size != PIXELS:
            pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        return pixels.contiguous(memory_format=torch.channels_last)

    def _shifted(self, x: torch.Tensor) -> torch.Tensor:
        """The batch moved as a whole by up to an eighth; drawings hold letters and arrows, so none is flipped."""
        reach, size = self.recipe.size // 8, self.recipe.size
        top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
        return functional.pad(x, (reach,) * 4)[:, :, top : top + size, left : left + size]

    def _image_rows(self, model: Any, images: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [model.encode_image(part, normalize=True) for part in images.split(_EVALUATION_BATCH)]
        )


def recalls(cosine_PP: NDArray[np.float32]) -> dict[str, float]:
    """Share of images whose own caption is among the 1, 5, 10 nearest, averaged with the same for captions.

    Args:
        cosine_PP: images x captions, pairs on the diagonal. One as near as the own counts as
            nearer: a model that tells nothing apart finds nothing.
    """
    own = np.diag(cosine_PP)
    rank_of_image = (cosine_PP >= own[:, None]).sum(1)
    rank_of_text = (cosine_PP >= own[None]).sum(0)
    return {
        f"recall_{k}": float(((rank_of_image <= k).mean() + (rank_of_text <= k).mean()) / 2)
        for k in (1, 5, 10)
    }
