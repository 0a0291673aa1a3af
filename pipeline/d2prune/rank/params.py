"""What decides a ranking, given graph and embeddings. Hashed into fingerprints and unit keys."""

from dataclasses import dataclass
from typing import Literal

from d2prune.knn.features import FeatureKind
from d2prune.parts.files import EMBEDDINGS


@dataclass(frozen=True)
class RankParams:
    """Parameters of `select.method: d2`.

    Attributes:
        difficulty: name of the score, or an expression over scores.
        offset: added to the score; `auto`: minus the lowest score of the pool.
        gamma_forward: decay of the forward messages.
        gamma_reverse: decay of the reverse messages.
    """

    difficulty: str
    offset: float | Literal["auto"]
    gamma_forward: float
    gamma_reverse: float


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
