"""The methods of the coreset benchmark: from scores, features and a graph to the kept samples.

Named `METHOD` or `METHOD:SCORE`; D2 also `d2:SCORE:FORWARD:REVERSE` with its two gammas, such as
`d2:aum:1:4/median`, and `d2_uncut` is D2 without a cut-off. No setting comes from a test set:
`d2:SCORE` has the values that the paper uses on CIFAR-10 (k = 5, gamma_f = 1, gamma_r = 0.1), CCS its
strata, the cut-offs beta are those published for CIFAR-10, and the library's default gamma was chosen
on the split `choose`. As in the paper ("supervised"), methods take an equal share of each class where
they can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.coreset.subgraphs import Subgraphs
from d2prune import scores
from d2prune.baselines import by_diversity, by_score
from d2prune.baselines.order import first
from d2prune.d2 import budget
from d2prune.d2.api import select
from d2prune.d2.gamma import FORWARD_MULTIPLE, TRAINING_MULTIPLES, check_gamma
from d2prune.errors import ArgumentError, UserError
from d2prune.knn.csr import Graph

Int64 = NDArray[np.int64]

N_NEIGHBORS = 5
PUBLISHED = ("1", "0.1")
# What `d2_prune` does by default with a difficulty of the kind `training`.
DEFAULT = tuple(f"{multiple:g}/median" for multiple in TRAINING_MULTIPLES)
# The gamma that the forward score alone has.
GAMMA_FORWARD = 1.0
# Any pass at this gamma sends no message, except between identical samples.
OFF = "1e6"
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
        subgraphs: of the features; None: built here.
    """

    def __init__(
        self,
        log: scores.TrainingLog,
        features: NDArray[np.float32],
        labels: Int64,
        subgraphs: Subgraphs | None = None,
    ) -> None:
        self._log, self.features, self.labels = log, features, labels
        self._subgraphs = subgraphs or Subgraphs(features, N_NEIGHBORS)
        self._graphs: dict[float, tuple[Int64, Graph]] = {}

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
        return self.graph_without(0.0)[1]

    def graph_without(self, beta: float) -> tuple[Int64, Graph]:
        """Return the samples left without the share `beta` of lowest AUM, and their exact kNN graph."""
        if beta not in self._graphs:
            left = np.flatnonzero(~budget.drop_mask(-self.scores["aum"], beta))
            self._graphs[beta] = left, self._subgraphs.graph(left)
        return self._graphs[beta]


def _shift_score(evidence: Evidence, name: str) -> NDArray[np.float64]:
    """Return a score shifted so that its minimum is 0, since the kernel needs values >= 0."""
    score = evidence.scores[name].astype(np.float64)
    return score - score.min()


def _d2(evidence: Evidence, score: str, m: int, beta: float, gammas: tuple[str, str] = PUBLISHED) -> Int64:
    """Do what `d2_prune` does, on a graph that is built once for all settings."""
    left, graph = evidence.graph_without(beta)
    difficulty = _shift_score(evidence, score)[left]
    result = select(graph, difficulty, *gammas, difficulty_kind="training")
    return left[budget.top(result.selection_score, m, evidence.labels[left])]


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
    "d2": lambda evidence, score, m, pruned, seed: _d2(evidence, score, m, BETA_D2.get(pruned, 0.0)),
    "d2_uncut": lambda evidence, score, m, pruned, seed: _d2(evidence, score, m, 0.0),
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
BY_DEFAULT = ":".join(("d2:aum", *DEFAULT))
PAPER = (
    "random",
    "d2:forgetting",
    "d2:aum",
    BY_DEFAULT,
    "ccs:aum",
    "moderate",
    "top:forgetting",
    "top:el2n",
    "top:aum",
    "k_center",
)
REST = (
    "forward:forgetting",
    "herding",
    "facility_location",
    "semdedup",
    "d2:el2n",
    ":".join(("d2:forgetting", *DEFAULT)),
    ":".join(("d2:el2n", *DEFAULT)),
    ":".join(("d2_uncut:aum", *DEFAULT)),
    "d2_uncut:aum",
    "d2:aum:1:4/median",
    "d2:aum:8/median:0.1",
    "top:entropy",
    "top:prototypes",
)
# Gammas of the grid, forward and reverse.
GRID_FORWARD = ("0.3/median", "1", "1/median", "2/median", "4/median", "8/median", OFF)
GRID_REVERSE = ("0.1", "1/median", "2/median", "3/median", "4/median", "6/median", "10/median")
GRID = tuple(f"d2:aum:{forward}:{reverse}" for forward in GRID_FORWARD for reverse in GRID_REVERSE)
# Without the cut-off, as for a user who gives no `drop_score`. None is published up to half pruned, so
# these differ from the grid at higher rates only.
UNCUT_FORWARD = ("0.3/median", "1", "2/median", "4/median", "8/median")
UNCUT_REVERSE = ("0.1", "1/median", "4/median")
UNCUT = tuple(f"d2_uncut:aum:{forward}:{reverse}" for forward in UNCUT_FORWARD for reverse in UNCUT_REVERSE)


def check(methods: Sequence[str]) -> None:
    """Check the names of methods.

    Raises:
        UserError: a name is unknown; the message lists the valid ones.
    """
    for text in methods:
        name, _, score = text.partition(":")
        if name in WITHOUT_SCORE and not score:
            continue
        score, *gammas = score.split(":")
        if not (name in WITH_SCORE and score in SCORES and (not gammas or _are_gammas(name, gammas))):
            raise UserError(
                f"--methods {text}: expected {', '.join(WITHOUT_SCORE)}, or one of {', '.join(WITH_SCORE)} "
                f"with a score, as in d2:aum, or d2 with a score and two gammas, as in {BY_DEFAULT}; scores "
                f"are {', '.join(SCORES)}"
            )


def _are_gammas(name: str, gammas: list[str]) -> bool:
    try:
        checked = [check_gamma("--methods", gamma, FORWARD_MULTIPLE) for gamma in gammas]
        return name in ("d2", "d2_uncut") and len(checked) == 2
    except ArgumentError:
        return False


def choose(evidence: Evidence, method: str, pruned: float, seed: int) -> Int64:
    """Return the samples that a method keeps when the share `pruned` is dropped, ascending."""
    name, *rest = method.split(":")
    m = round(len(evidence.labels) * (1 - pruned))
    if len(rest) == 3:
        beta = 0.0 if name == "d2_uncut" else BETA_D2.get(pruned, 0.0)
        return np.sort(_d2(evidence, rest[0], m, beta, (rest[1], rest[2])))
    choose_samples = WITH_SCORE.get(name) or WITHOUT_SCORE[name]
    return np.sort(choose_samples(evidence, rest[0] if rest else "", m, pruned, seed))
