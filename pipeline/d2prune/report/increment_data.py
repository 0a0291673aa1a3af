"""What the page shows of an increment, as plain records."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from d2prune.parts.shard_changes import ShardChanges


@dataclass(frozen=True)
class Fact:
    """One number of both runs, as text."""

    name: str
    before: str
    now: str


@dataclass(frozen=True)
class Movement:
    """Samples that entered or left the selection for one reason."""

    name: str
    meaning: str
    entered: int
    left: int


@dataclass(frozen=True)
class Increment:
    """What changed since the run that this one continues.

    Attributes:
        run_id: of that run.
        gone: why it cannot be compared; empty: it can, and the other fields are set.
        shards: that came and went.
        new: samples that only this pool has.
        removed: samples that only the earlier pool has.
        common: samples that both have.
        settings: parameters that differ.
        facts: numbers of both runs.
        movements: reasons with at least one sample.
        mean_score: of the samples that the earlier run kept.
        examples: reason -> canonical positions of some samples; of those that a new sample displaced, each
            is followed by its suppressor.
    """

    run_id: str
    gone: str = ""
    shards: ShardChanges | None = None
    new: int = 0
    removed: int = 0
    common: int = 0
    settings: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    movements: tuple[Movement, ...] = ()
    mean_score: float | None = None
    examples: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def entered(self) -> int:
        """Samples that this run keeps and the earlier one did not."""
        return sum(movement.entered for movement in self.movements)

    @property
    def left(self) -> int:
        """Samples that the earlier run kept and this one does not."""
        return sum(movement.left for movement in self.movements)
