"""What many tests need: a tiny CLIP with random weights that were saved to a file, and logging put back in order."""

import json
import logging

import pytest

from pipeline.embed import models

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with `tiny-clip.json` and `weights.safetensors`."""
    import safetensors.torch

    open_clip = models.import_open_clip()
    import torch

    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    safetensors.torch.save_file(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _log_handlers_as_before():
    """The command line points logging at a stream that pytest closes."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
