"""d2prune: exact, distributed D2 Pruning (arXiv 2310.07931) of image-text pools.

The public names are imported on first use, so that `import d2prune` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from d2prune.console import redact_logs
from d2prune.version import __version__

if TYPE_CHECKING:
    from d2prune import scores
    from d2prune.config.model import RunConfig
    from d2prune.d2.api import selection_scores
    from d2prune.d2.coreset import Coreset, d2_prune
    from d2prune.d2.near_duplicates import deduplicate
    from d2prune.knn.csr import Graph
    from d2prune.knn.features import combine_embeddings
    from d2prune.knn.in_memory import knn_graph
    from d2prune.runs.driver import run
    from d2prune.selector import D2Pruner

redact_logs()

# No submodule of the package may have one of these names: importing it would replace the name.
_PUBLIC = {
    "Coreset": "d2prune.d2.coreset",
    "D2Pruner": "d2prune.selector",
    "Graph": "d2prune.knn.csr",
    "RunConfig": "d2prune.config.model",
    "combine_embeddings": "d2prune.knn.features",
    "d2_prune": "d2prune.d2.coreset",
    "deduplicate": "d2prune.d2.near_duplicates",
    "knn_graph": "d2prune.knn.in_memory",
    "run": "d2prune.runs.driver",
    "selection_scores": "d2prune.d2.api",
}

__all__ = [
    "Coreset",
    "D2Pruner",
    "Graph",
    "RunConfig",
    "__version__",
    "combine_embeddings",
    "d2_prune",
    "deduplicate",
    "knn_graph",
    "run",
    "scores",
    "selection_scores",
]


def __getattr__(name: str) -> Any:
    if name == "scores":
        return importlib.import_module("d2prune.scores")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
