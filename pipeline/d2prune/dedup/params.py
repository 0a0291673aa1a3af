"""What decides which duplicates are dropped, given embeddings and graph. Hashed into fingerprints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DedupParams:
    """Parameters of the stage; `config.DedupConfig` documents the first two.

    Attributes:
        exact: whether to drop exact copies.
        near: lowest cosine of near-duplicates; None: none are dropped.
        difficulty: score, or an expression over scores; of duplicates, the one with the highest stays.
    """

    exact: bool
    near: float | None
    difficulty: str
