"""What the workers of the dedup stage share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from d2prune import store
from d2prune.dedup.params import DedupParams
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.scores.column import order_keys, read_score
from d2prune.store import artifacts

SCORE_OPTION = "score.difficulty"
_LOWEST_KEY = -(2**31)


@dataclass(frozen=True)
class DedupJob:
    """One deduplication; picklable.

    Attributes:
        parts: the pool, with the units of embed and graph, and of rescore if the run has it.
        folder: `work_dir/dedup`.
        fingerprint: of the artifact.
        params: of the stage.
        bounds: partition p owns parts bounds[p] to bounds[p + 1] - 1.
        buckets: of the image hashes; 0: exact copies are not looked for.
    """

    parts: Parts
    folder: str
    fingerprint: str
    params: DedupParams
    bounds: tuple[int, ...]
    buckets: int

    @property
    def owners(self) -> Spans:
        """Canonical positions of each partition."""
        return Spans(self.parts.spans.starts[list(self.bounds)])

    @property
    def checkpoints(self) -> str:
        """Folder of the workers' checkpoints."""
        return store.join(self.folder, "checkpoints", artifacts.fingerprint(self.fingerprint, self.bounds))

    def unit_key(self, part: int) -> str:
        """Key of a part's unit. Its rows depend on all inputs of the stage, for the whole pool."""
        return artifacts.unit_key(f"{part:08d}", self.fingerprint)

    @property
    def hashes_keys(self) -> list[str]:
        """Keys of the units that send the image hashes of each part to the buckets; none for near only."""
        n_parts = self.parts.spans.n_parts if self.buckets else 0
        return [
            artifacts.unit_key(f"hashes-{part:08d}", self.fingerprint, self.buckets)
            for part in range(n_parts)
        ]

    @property
    def copies_keys(self) -> list[str]:
        """Keys of the units that group the hashes of each bucket."""
        return [
            artifacts.unit_key(f"copies-{bucket:08d}", self.fingerprint, self.buckets)
            for bucket in range(self.buckets)
        ]

    def read_keys(self, numbers: Sequence[int]) -> npt.NDArray[np.int64]:
        """Read the place of some parts' samples in the order of difficulty, as int64 [N] > 0."""
        score_N = read_score(self.parts, numbers, self.params.difficulty, SCORE_OPTION)
        return order_keys(score_N) - _LOWEST_KEY + 1
