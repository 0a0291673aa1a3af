"""Difficulty scores: what makes a sample wanted before the graph has its say. Higher = more wanted, always.

    from logs of training   el2n, grand, forgetting, aum, entropy, margin, variance_of_gradients (training.py)
    from embeddings         prototypes (clusters.py)
    from a stored column    column.py, expression.py; this is how a run reads its score

`TrainingLog` collects the logs in a PyTorch loop. The public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2prune.scores.clusters import prototypes
    from d2prune.scores.recorder import TrainingLog
    from d2prune.scores.training import (
        aum,
        el2n,
        entropy,
        forgetting,
        grand,
        margin,
        softmax,
        variance_of_gradients,
    )

_TRAINING = ("aum", "el2n", "entropy", "forgetting", "grand", "margin", "softmax", "variance_of_gradients")
_PUBLIC = {
    **dict.fromkeys(_TRAINING, "d2prune.scores.training"),
    "TrainingLog": "d2prune.scores.recorder",
    "prototypes": "d2prune.scores.clusters",
}

__all__ = [
    "TrainingLog",
    "aum",
    "el2n",
    "entropy",
    "forgetting",
    "grand",
    "margin",
    "prototypes",
    "softmax",
    "variance_of_gradients",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
