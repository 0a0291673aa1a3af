"""The methods of the image-text benchmark, and the diversity of their subsets. Pure functions.

A method is named `random`, `clip_score`, `semdedup+clip_score`, `forward:K` or `d2:K:GAMMA`: K
neighbours in the exact graph of images and texts, and GAMMA for both passes. All settings were
fixed before the first run.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from benchmarks.image_text.data import COPIES, NoisyPool
from benchmarks.image_text.scores import Evidence
from d2prune.baselines import by_diversity, by_score
from d2prune.baselines.order import first
from d2prune.d2.api import select
from d2prune.d2.budget import top
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph
from d2prune.report.metrics import distances, effective_directions

Int64 = NDArray[np.int64]

# The paper's setting for DataComp is d2:1:1.
METHODS = (
    "random", "clip_score", "semdedup+clip_score", "forward:1", "forward:5",
    "d2:1:1", "d2:1:10", "d2:5:1", "d2:5:10", "d2:15:1", "d2:15:10",
)  # fmt: skip
GAMMA_FORWARD_ALONE = 1.0
ROWS_PER_CLUSTER = 50


class Chooser:
    """Chooses subsets of one pool; builds one graph per k."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._difficulty = evidence.score - evidence.score.min()
        self._graph = functools.cache(self._make_graph)

    def choose(self, method: str, m: int, seed: int) -> Int64:
        """Return the m pairs that a method keeps, ascending."""
        name, *numbers = method.split(":")
        score = self._evidence.score
        if name == "random":
            kept = first(by_score.random(len(score), seed), m)
        elif name == "clip_score":
            kept = first(by_score.top_score(score), m)
        elif name == "semdedup+clip_score":
            kept = self._deduplicate(m, seed)
        elif name == "forward":
            graph = self._graph(int(numbers[0]))
            kept = first(by_score.forward(graph, self._difficulty, GAMMA_FORWARD_ALONE), m)
        else:
            gamma = float(numbers[1])
            kept = top(
                select(self._graph(int(numbers[0])), self._difficulty, gamma, gamma).selection_score, m
            )
        return np.sort(kept)

    def _deduplicate(self, m: int, seed: int) -> Int64:
        """Drop the true share of copies by SemDeDup, then keep the m highest scores."""
        image, score = self._evidence.image, self._evidence.score
        n_clusters = max(1, len(image) // ROWS_PER_CLUSTER)
        order, _ = by_diversity.semdedup(image, n_clusters, score=score, seed=seed)
        left = order[: max(m, round(len(order) * (1 - COPIES)))]
        return left[first(by_score.top_score(score[left]), m)]

    def _make_graph(self, k: int) -> Graph:
        return knn_graph(self._evidence.both, k)


def check(methods: list[str]) -> None:
    """Check the names of methods.

    Raises:
        UserError: a name is unknown; the message lists the valid ones.
    """
    for method in methods:
        name, *numbers = method.split(":")
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = [-1.0]
        wanted = {"random": 0, "clip_score": 0, "semdedup+clip_score": 0, "forward": 1, "d2": 2}.get(name)
        if (
            wanted != len(values)
            or any(value < 0 for value in values)
            or (values[:1] and not _is_count(values[0]))
        ):
            raise UserError(
                f"--methods {method}: expected random, clip_score, semdedup+clip_score, forward:K or "
                "d2:K:GAMMA with an integer K >= 1 and a number GAMMA >= 0"
            )


def diversity(pool: NoisyPool, evidence: Evidence, kept: Int64) -> dict[str, float]:
    """Describe the kept pairs.

    Returns:
        `wrong`: share of wrong captions, in [0, 1].
        `copies`: share of kept images that repeat the drawing of another kept image, in [0, 1].
        `groups`, `categories`: number of content groups and of categories.
        `radius`: distance within which 90 % of the pool's images have a kept image.
        `vendi`: effective number of directions of the kept images (Friedman, Dieng 2023).
    """
    original = pool.original[kept]
    near = np.concatenate(
        [distances(block, evidence.image[kept]).min(axis=1) for block in np.array_split(evidence.image, 8)]
    )
    return {
        "wrong": float(pool.wrong[kept].mean()),
        "copies": 1 - len(np.unique(original)) / len(kept),
        "groups": len(np.unique(pool.drawings.groups[kept])),
        "categories": len({pool.drawings.categories[row] for row in kept}),
        "radius": float(np.quantile(near, 0.9)),
        "vendi": effective_directions(evidence.image[kept]),
    }


def _is_count(value: float) -> bool:
    return value.is_integer() and value >= 1
