"""The bundled pool of captioned clip art, and a tiny model trained on such images.

For the demo and the tests only.
"""

from pathlib import Path

__all__ = ["MODEL_DIR", "MODEL_NAME", "MODEL_WEIGHTS", "POOL_DIR"]

POOL_DIR = Path(__file__).parent / "pool"
"""Folder of the WebDataset tars `{:08d}.tar`."""

MODEL_DIR = Path(__file__).parent / "model"
"""Folder of the open_clip config `{MODEL_NAME}.json`, for `open_clip.add_model_config`."""

MODEL_NAME = "demo"
"""Name of the model in open_clip and in `embed.model`."""

MODEL_WEIGHTS = MODEL_DIR / "weights.safetensors"
"""Float16 weights, for open_clip's `pretrained`."""
