"""How many samples of interest were dropped, beside the share of all samples that was dropped."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FlagShare:
    """How many flagged samples were dropped, and how many of all samples."""

    flagged: int
    flagged_dropped: int
    samples: int
    dropped: int

    @property
    def share_flagged(self) -> float:
        """Share of the flagged samples that was dropped, in [0, 1]; nan if none is flagged."""
        return self.flagged_dropped / self.flagged if self.flagged else float("nan")

    @property
    def share_all(self) -> float:
        """Share of all samples that was dropped, in [0, 1]; nan if there are none."""
        return self.dropped / self.samples if self.samples else float("nan")


def flag_share(uids: Sequence[str], kept: NDArray[np.bool_], flagged: Collection[str]) -> FlagShare:
    """Count how many of the flagged samples were dropped.

    Args:
        uids: N uids of embedded samples.
        kept: bool [N].
        flagged: uids of interest, such as planted mismatches; those not in `uids` are ignored.
    """
    names = frozenset(flagged)
    is_flagged = np.fromiter((uid in names for uid in uids), dtype=bool, count=len(uids))
    return FlagShare(int(is_flagged.sum()), int((is_flagged & ~kept).sum()), len(uids), int((~kept).sum()))
