"""The methods of the coreset benchmark: from scores, features and a graph to the kept samples.

Named `METHOD` or `METHOD:SCORE`. All settings were fixed here before any run, none by a test set:
D2 has the values that the paper uses on CIFAR-10 (k = 5, gamma_r = 0.1), CCS its strata, and the
cut-offs beta are those published for CIFAR-10. As in the paper ("supervised"), methods take an
equal share of each class where they can.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2prune import scores
from d2prune.baselines import by_diversity, by_score
from d2prune.baselines.order import first
from d2prune.d2.coreset import d2_prune
from d2prune.errors import UserError
from d2prune.knn.csr import Graph
from d2prune.knn.in_memory import knn_graph

Int64 = NDArray[np.int64]

N_NEIGHBORS, GAMMA_FORWARD, GAMMA_REVERSE = 5, 1.0, 0.1
# Share of likely mislabelled samples (lowest AUM) that is dropped first, by share pruned: as CCS on
# CIFAR-10 (arXiv 2210.15809, appendix B). D2 has the same values except at 90 %, where its released
# command gives 0.4; it publishes none for other rates.
BETA_CCS = {0.3: 0.0, 0.5: 0.0, 0.7: 0.1, 0.8: 0.1, 0.9: 0.3}
BETA_D2 = {**BETA_CCS, 0.9: 0.4}
ROWS_PER_CLUSTER = 50


class Evidence:
    """What a method may use to choose a coreset.

    Args:
        log: training log of the model trained on all samples.
        features: float32 [N, D], for distances.
        labels: int64 [N].
    """

    def __init__(self, log: scores.TrainingLog, features: NDArray[np.float32], labels: Int64) -> None:
        self._log, self.features, self.labels = log, features, labels

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float32]]:
        """Name -> difficulty score, float32 [N]; higher is harder."""
        p, labels = self._log.probabilities, self.labels
        return {
            "el2n": scores.el2n(p, labels),
            "forgetting": scores.forgetting(p, labels),
            "aum": scores.aum(self._log.logits, labels),
            "entropy": scores.entropy(p),
            "margin": scores.margin(p),
            "vog": scores.variance_of_gradients(p),
            "prototypes": scores.prototypes(self.features, int(labels.max()) + 1),
        }

    @cached_property
    def graph(self) -> Graph:
        """The exact kNN graph of the features."""
        return knn_graph(self.features, N_NEIGHBORS)


def _shift_score(evidence: Evidence, name: str) -> NDArray[np.float64]:
    """Return a score shifted so that its minimum is 0, since the kernel needs values >= 0."""
    score = evidence.scores[name].astype(np.float64)
    return score - score.min()


def _d2(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    n = len(evidence.labels)
    # Half a sample more, because floor(n * (m / n)) can be m - 1 in floating point.
    fraction = min(1.0, (m + 0.5) / n)
    return d2_prune(
        evidence.features,
        _shift_score(evidence, score),
        fraction=fraction,
        n_neighbors=N_NEIGHBORS,
        gamma_forward=GAMMA_FORWARD,
        gamma_reverse=GAMMA_REVERSE,
        groups=evidence.labels,
        drop_score=-evidence.scores["aum"],
        drop_fraction=BETA_D2.get(pruned, 0.0),
    ).indices


def _ccs(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return first(by_score.ccs(evidence.scores[score], BETA_CCS.get(pruned, 0.0), seed=seed), m)


def _top(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return first(by_score.top_score(evidence.scores[score]), m, evidence.labels)


def _forward(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    order = by_score.forward(evidence.graph, _shift_score(evidence, score), GAMMA_FORWARD)
    return first(order, m, evidence.labels)


def _random(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return first(by_score.random(len(evidence.labels), seed), m, evidence.labels)


def _moderate(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return first(by_score.moderate(evidence.features, evidence.labels), m, evidence.labels)


def _k_center(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return by_diversity.k_center(evidence.features, m, seed)


def _herding(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return by_diversity.herding(evidence.features, m)


def _facility_location(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    return by_diversity.facility_location(evidence.graph, m)


def _semdedup(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    n_clusters = max(1, len(evidence.labels) // ROWS_PER_CLUSTER)
    return first(by_diversity.semdedup(evidence.features, n_clusters, seed=seed)[0], m)


WITH_SCORE: dict[str, Callable[[Evidence, str, int, float, int], Int64]] = {
    "d2": _d2,
    "ccs": _ccs,
    "top": _top,
    "forward": _forward,
}
WITHOUT_SCORE: dict[str, Callable[[Evidence, str, int, float, int], Int64]] = {
    "random": _random,
    "moderate": _moderate,
    "k_center": _k_center,
    "herding": _herding,
    "facility_location": _facility_location,
    "semdedup": _semdedup,
}
SCORES = ("el2n", "forgetting", "aum", "entropy", "margin", "vog", "prototypes")
PAPER = (
    "random",
    "d2:forgetting",
    "d2:aum",
    "ccs:aum",
    "moderate",
    "top:forgetting",
    "top:el2n",
    "top:aum",
    "k_center",
)
REST = ("forward:forgetting", "herding", "facility_location", "semdedup", "d2:el2n", "top:prototypes")


def check(methods: list[str]) -> None:
    """Check the names of methods.

    Raises:
        UserError: a name is unknown; the message lists the valid ones.
    """
    for text in methods:
        name, _, score = text.partition(":")
        if not (name in WITHOUT_SCORE and not score) and not (name in WITH_SCORE and score in SCORES):
            raise UserError(
                f"--methods {text}: expected {', '.join(WITHOUT_SCORE)}, or one of {', '.join(WITH_SCORE)} "
                f"with a score, as in d2:aum; scores are {', '.join(SCORES)}"
            )


def choose(evidence: Evidence, method: str, pruned: float, seed: int) -> Int64:
    """Return the samples that a method keeps when the share `pruned` is dropped, ascending."""
    name, _, score = method.partition(":")
    m = round(len(evidence.labels) * (1 - pruned))
    choose_samples = WITH_SCORE.get(name) or WITHOUT_SCORE[name]
    return np.sort(choose_samples(evidence, score, m, pruned, seed))
