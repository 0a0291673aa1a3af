"""What decides a ranking, given graph and embeddings. Hashed into fingerprints and unit keys."""

from dataclasses import dataclass
from typing import Literal

from d2prune.knn.feature_kind import FeatureKind
from d2prune.parts.files import EMBEDDINGS


@dataclass(frozen=True)
class RankParams:
    """Parameters of `select.method: d2`.

    Attributes:
        difficulty: name of the score, or an expression over scores.
        offset: added to the score; `auto`: minus the lowest score of the pool, or what makes equal scores 1.
        gamma_forward: decay of the forward messages, from `check_gamma`: a number or `C/median`.
        gamma_reverse: decay of the reverse messages, likewise.
    """

    difficulty: str
    offset: float | Literal["auto"]
    gamma_forward: float | str
    gamma_reverse: float | str


@dataclass(frozen=True)
class Resolved:
    """The parameters that depend on the pool, as numbers; facts of the artifact.

    Attributes:
        offset: added to the score.
        gamma_forward: decay of the forward messages.
        gamma_reverse: decay of the reverse messages.
        median_sq_distance: of the graph's edges, if a gamma is a multiple of it; otherwise None.
    """

    offset: float
    gamma_forward: float
    gamma_reverse: float
    median_sq_distance: float | None = None


@dataclass(frozen=True)
class Baseline:
    """A method other than d2 (methods.py), and what it needs besides difficulty and graph.

    Attributes:
        method: its name.
        seed: of its random choices.
        features: what distances are measured on, as for the graph.
        embeddings: file of each embed part with the embeddings to use.
    """

    method: str
    seed: int
    features: FeatureKind
    embeddings: str = EMBEDDINGS


@dataclass(frozen=True)
class BaselineParams(RankParams):
    """Parameters of any other method. A separate class, so that d2's fingerprints do not change."""

    baseline: Baseline
