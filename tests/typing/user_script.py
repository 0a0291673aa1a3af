"""A user's script with every public name; `make check` runs mypy --strict on it, and a test runs it."""

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import d2prune
from d2prune import Coreset, Graph, RunConfig, scores
from d2prune.errors import ArgumentError
from d2prune.runs.driver import RunResult

rng = np.random.default_rng(0)
image, text = rng.normal(size=(200, 8)), rng.normal(size=(200, 8))
rows = d2prune.combine_embeddings(image, text)
difficulty: list[float] = rng.random(200).tolist()

graph = d2prune.knn_graph(rows, n_neighbors=4)
assert_type(graph, Graph)
coreset: Coreset = d2prune.d2_prune(graph, difficulty, size=20)
assert_type(coreset.mask, NDArray[np.bool_])
assert_type(coreset.scores, NDArray[np.float64])
assert_type(d2prune.d2_prune(rows, difficulty, 0.3, offset=1.0).take(0.1), Coreset)
assert_type(d2prune.selection_scores(graph, difficulty), NDArray[np.int64])
assert_type(d2prune.deduplicate(graph, difficulty, min_cosine=0.9), NDArray[np.int64])
support = d2prune.D2Pruner(fraction=0.5).fit(rows, difficulty).get_support()
print(d2prune.__version__, coreset, support.sum(), d2prune.scores.__name__)

log = scores.TrainingLog(200, 3)
labels = np.arange(200) % 3
log.record(np.arange(200), rng.normal(size=(200, 3)), labels)
log.end_epoch()
found: list[NDArray[np.float32]] = [
    scores.aum(log),
    scores.el2n(log),
    scores.entropy(log),
    scores.forgetting(log),
    scores.grand(log, features=rng.normal(size=(200, 1, 8))),
    scores.margin(scores.softmax(log.logits)),
    scores.variance_of_gradients(log),
    scores.prototypes(rows, 4),
    scores.s_clip_loss(image, text),
    scores.norm_sim(image, text),
]


def filter_pool(path: str) -> str:
    """Run a configuration; returns where the report is."""
    try:
        result: RunResult = d2prune.run(RunConfig.load(path), use_ray=False)
    except ArgumentError as error:
        return str(error)
    return result.report or ""
