"""Difficulty scores: how much each sample is wanted, before the graph is taken into account.

Higher always means more wanted, so every score can be passed to `d2_prune(difficulty=...)`.

    training.py              from training logs: el2n, grand, forgetting, aum, entropy, margin,
                             variance_of_gradients
    clusters.py              from embeddings: prototypes
    pairs.py                 from image and text embeddings: s_clip_loss, norm_sim
    column.py, expression.py from stored columns, which is how a run reads its score

`TrainingLog` collects training logs in a PyTorch loop; every score of training.py takes one. Public
names are loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2prune.scores.clusters import prototypes
    from d2prune.scores.pairs import norm_sim, s_clip_loss
    from d2prune.scores.probabilities import softmax
    from d2prune.scores.training import (
        aum,
        el2n,
        entropy,
        forgetting,
        grand,
        margin,
        variance_of_gradients,
    )
    from d2prune.scores.training_log import TrainingLog

_TRAINING = ("aum", "el2n", "entropy", "forgetting", "grand", "margin", "variance_of_gradients")
_PUBLIC = {
    **dict.fromkeys(_TRAINING, "d2prune.scores.training"),
    "TrainingLog": "d2prune.scores.training_log",
    "softmax": "d2prune.scores.probabilities",
    "norm_sim": "d2prune.scores.pairs",
    "prototypes": "d2prune.scores.clusters",
    "s_clip_loss": "d2prune.scores.pairs",
}

__all__ = [
    "TrainingLog",
    "aum",
    "el2n",
    "entropy",
    "forgetting",
    "grand",
    "margin",
    "norm_sim",
    "prototypes",
    "s_clip_loss",
    "softmax",
    "variance_of_gradients",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
