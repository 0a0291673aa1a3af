"""The bundled pool of clip art and the tiny model that can tell its captions apart: for the demo and the tests only."""

from pathlib import Path

__all__ = ["MODEL_DIR", "MODEL_NAME", "MODEL_WEIGHTS", "POOL_DIR"]

POOL_DIR = Path(__file__).parent / "pool"
"""Folder of the WebDataset tars ``{:08d}.tar``."""

MODEL_DIR = Path(__file__).parent / "model"
"""Folder with the open_clip config ``{MODEL_NAME}.json``; give it to ``open_clip.add_model_config``."""

MODEL_NAME = "demo"
"""Name of the model to open_clip, and in ``embed.model``."""

MODEL_WEIGHTS = MODEL_DIR / "weights.safetensors"
"""Float16 weights; give the path to open_clip as ``pretrained``."""
