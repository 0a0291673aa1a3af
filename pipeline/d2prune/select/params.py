"""What decides a selection, given the ranking. Hashed into fingerprints."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SelectParams:
    """The budget, in the units of `config.SelectConfig`. Exactly one of the first three is set.

    Attributes:
        fraction: share of all embedded samples to keep.
        size: number of samples to keep.
        min_score: lowest selection score to keep.
        groups: column by which to divide the budget; None: the whole pool is one group.
        cut: which samples are kept at the end of a fraction.
    """

    fraction: float | None
    size: int | None
    min_score: float | None
    groups: str | None
    cut: Literal["exact", "datacomp"] = "exact"
