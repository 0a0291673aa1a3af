"""Evaluation of the demo model: how well its scores separate correct captions from wrong ones.

Reads and writes nothing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tools.clipart import ImageRecord, caption
from tools.demo_model import Model, tokenise
from tools.make_pool import permute_across_groups

__all__ = ["ImageFeatures", "auc", "held_out_auc"]


@dataclass(frozen=True)
class ImageFeatures:
    """Images with the features of the trunk.

    Attributes:
        records: N images.
        groups: int64 [N], content groups.
        features: float32 [N, 1280], from :func:`tools.trunk.trunk_features`.
    """

    records: list[ImageRecord]
    groups: np.ndarray
    features: torch.Tensor

    def take(self, rows: np.ndarray) -> "ImageFeatures":
        """Return the images at `rows`, int64 [M]."""
        return ImageFeatures([self.records[row] for row in rows], self.groups[rows], self.features[rows])


def auc(matched: np.ndarray, wrong: np.ndarray) -> float:
    """Return the area under the ROC curve.

    That is the probability that a correct caption scores above a wrong one; ties count half.

    Args:
        matched: scores of correct captions [N].
        wrong: scores of wrong captions, of any shape.
    """
    ordered = np.sort(wrong, axis=None)
    below = np.searchsorted(ordered, matched, side="left") + np.searchsorted(ordered, matched, side="right")
    return float(below.mean() / 2 / len(ordered))


@torch.inference_mode()
def held_out_auc(
    model: Model, image: torch.Tensor, held_out: ImageFeatures, rng: np.random.Generator
) -> float:
    """Return the AUC of correct captions against captions of another content group.

    Args:
        model: its text tower is used.
        image: embeddings of all held-out images [N, D].
        held_out: N images.
        rng: chooses the wrong captions.
    """
    image = nn.functional.normalize(image, dim=1)
    tokens = tokenise([caption(record) for record in held_out.records])
    text = torch.cat([model.encode_text(part, normalize=True) for part in torch.split(tokens, 256)])
    matched = (image * text).sum(1).numpy()
    wrong = [(image * text[permute_across_groups(held_out.groups, rng)]).sum(1).numpy() for _ in range(5)]
    return auc(matched, np.concatenate(wrong))
