"""What decides the scores, given the embeddings. Hashed into fingerprints and unit keys."""

from dataclasses import dataclass

from d2prune.knn.feature_kind import FeatureKind
from d2prune.store import schemas


@dataclass(frozen=True)
class RescoreParams:
    """Parameters of the stage; `config.ScoreConfig` documents those that are options.

    Attributes:
        scores: names of the scores, of `schemas.PAIR_SCORES`, in its order.
        embeddings: file of each embed part with the embeddings to use.
        reference_size: samples of one reference.
        references: number of references.
        temperature: of s-CLIPLoss.
        seed: of the references.
        target: SHA-256 of the target file; None: there is none.
        centroids: SHA-256 of the file of centroids; None: there is none.
    """

    scores: tuple[str, ...]
    embeddings: str
    reference_size: int
    references: int
    temperature: float
    seed: int
    target: str | None
    centroids: str | None = None

    @property
    def needs_references(self) -> bool:
        """Whether a score compares with a reference of the pool."""
        compared = {schemas.S_CLIP_LOSS} if self.target else {schemas.S_CLIP_LOSS, schemas.NORM_SIM_2}
        return not compared.isdisjoint(self.scores)

    @property
    def sides(self) -> FeatureKind:
        """The embeddings that the scores need."""
        return "image+text" if schemas.S_CLIP_LOSS in self.scores else "image"
