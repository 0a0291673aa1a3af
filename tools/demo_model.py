"""The demo model's open_clip configuration and its tokens.

Reads and writes nothing.
"""

from typing import Any

import torch

from d2prune.torchvision_shim import install_if_needed

install_if_needed()

import open_clip  # noqa: E402  # isort: skip

__all__ = ["CONFIG", "TOKENIZER", "Model", "tokenise"]

# Most of the bytes are the trunk, in float16, and the token table of CLIP's vocabulary of 49,408,
# which is kept so that open_clip's tokenizer works. The table is in 8 bits; otherwise there would
# be room for 32 columns only.
CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": 80,
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "timm_drop": 0.3,
    },
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 1},
}
TOKENIZER = open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])

# open_clip has no type annotations.
Model = Any


def tokenise(texts: list[str]) -> torch.Tensor:
    """Return the tokens of N texts, int64 [N, 32]."""
    tokens: torch.Tensor = TOKENIZER(texts)
    return tokens
