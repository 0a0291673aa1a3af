"""The methods of the coreset benchmark: from scores, features and a graph to the samples kept.

`method` or `method:score`. All settings are fixed here, before any run, and none was chosen by a
test set: D2 takes the values the paper uses on CIFAR-10 (k = 5, gamma_r = 0.1) and CCS its strata;
cut-offs beta are those published for CIFAR-10. Every method that can takes an equal share of each
class ("supervised"), as the paper does.
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
# Share of the likely mislabelled (lowest AUM) dropped first, by share pruned: CCS's on CIFAR-10
# (arXiv 2210.15809, appendix B). D2 follows it but at 90 %, where its released command gives 0.4;
# for other rates it publishes none.
BETA_CCS = {0.3: 0.0, 0.5: 0.0, 0.7: 0.1, 0.8: 0.1, 0.9: 0.3}
BETA_D2 = {**BETA_CCS, 0.9: 0.4}
ROWS_PER_CLUSTER = 50


class Evidence:
    """All that is known of a training set before a coreset is chosen.

    Args:
        log: of the model that was trained on everything.
        features: float32 [N, D], distances are measured on.
        labels: int64 [N].
    """

    def __init__(self, log: scores.TrainingLog, features: NDArray[np.float32], labels: Int64) -> None:
        self._log, self.features, self.labels = log, features, labels

    @cached_property
    def scores(self) -> dict[str, NDArray[np.float32]]:
        """Every difficulty score, higher = harder."""
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
        """The kNN graph of the features, exact."""
        return knn_graph(self.features, N_NEIGHBORS)


def _difficulty(evidence: Evidence, name: str) -> NDArray[np.float64]:
    """A score, lowest at 0, as the kernel wants it."""
    score = evidence.scores[name].astype(np.float64)
    return score - score.min()


def _d2(evidence: Evidence, score: str, m: int, pruned: float, seed: int) -> Int64:
    n = len(evidence.labels)
    # Half a sample more: m / n is no decimal number, and the floor of its product with n may be m - 1.
    fraction = min(1.0, (m + 0.5) / n)
    return d2_prune(
        evidence.features,
        _difficulty(evidence, score),
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
    order = by_score.forward(evidence.graph, _difficulty(evidence, score), GAMMA_FORWARD)
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
    """Fail on a name that means nothing.

    Raises:
        UserError: names the method and what there is.
    """
    for text in methods:
        name, _, score = text.partition(":")
        if not (name in WITHOUT_SCORE and not score) and not (name in WITH_SCORE and score in SCORES):
            raise UserError(
                f"--methods {text}: expected {', '.join(WITHOUT_SCORE)}, or one of {', '.join(WITH_SCORE)} with a "
                f"score, as in d2:aum; scores are {', '.join(SCORES)}"
            )


def choose(evidence: Evidence, method: str, pruned: float, seed: int) -> Int64:
    """The samples that a method keeps, ascending, of all but the share `pruned`."""
    name, _, score = method.partition(":")
    m = round(len(evidence.labels) * (1 - pruned))
    work = WITH_SCORE.get(name) or WITHOUT_SCORE[name]
    return np.sort(work(evidence, score, m, pruned, seed))
