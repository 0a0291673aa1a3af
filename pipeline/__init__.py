"""d2prune: exact, distributed D2 Pruning (arXiv 2310.07931) for image-text pools.

The public names are loaded when they are first used, so that `import pipeline` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline import scores
    from pipeline.config import RunConfig
    from pipeline.driver import run
    from pipeline.graph.csr import Graph
    from pipeline.graph.knn import knn_graph
    from pipeline.selection.api import selection_scores
    from pipeline.selection.coreset import Coreset, d2_prune

_PUBLIC = {
    "Coreset": "pipeline.selection.coreset",
    "Graph": "pipeline.graph.csr",
    "RunConfig": "pipeline.config",
    "d2_prune": "pipeline.selection.coreset",
    "knn_graph": "pipeline.graph.knn",
    "run": "pipeline.driver",
    "selection_scores": "pipeline.selection.api",
}

__all__ = ["Coreset", "Graph", "RunConfig", "d2_prune", "knn_graph", "run", "scores", "selection_scores"]


def __getattr__(name: str) -> Any:
    if name == "scores":
        return importlib.import_module("pipeline.scores")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
