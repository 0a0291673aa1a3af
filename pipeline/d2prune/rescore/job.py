"""What the workers of the rescore stage share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import InfrastructureError
from d2prune.knn.feature_kind import FeatureKind
from d2prune.knn.features import unit_rows
from d2prune.parts.features import read_embeddings
from d2prune.parts.reader import Parts
from d2prune.rescore.params import RescoreParams
from d2prune.scores.pairs import Reference, draw_references
from d2prune.store import artifacts
from d2prune.store.npy import load_array

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

ROWS = "rows.npy"
_THREADS = 8


@dataclass(frozen=True)
class RescoreJob:
    """The scores to compute; picklable.

    Attributes:
        parts: the pool, with the units of embed.
        embed_fingerprint: of the embed artifact.
        folder: `work_dir/rescore`.
        params: of the stage.
        target: URL of the target set.
        centroids: URL of the centroids.
    """

    parts: Parts
    embed_fingerprint: str
    folder: str
    params: RescoreParams
    target: str | None
    centroids: str | None = None

    def rows_key(self, part: int) -> str:
        """Key of the unit with a part's rows of the references."""
        params = self.params
        drawn = (params.reference_size, params.references, params.seed, params.embeddings)
        return artifacts.unit_key(f"rows-{part:08d}", drawn, self.embed_fingerprint)

    def scores_key(self, part: int) -> str:
        """Key of the unit with a part's scores."""
        return artifacts.unit_key(f"{part:08d}", self.params, self.embed_fingerprint)

    @cached_property
    def drawn(self) -> list[Int64]:
        """Canonical positions of each reference, ascending."""
        params = self.params
        return draw_references(len(self.parts), params.reference_size, params.references, params.seed)

    @cached_property
    def wanted(self) -> Int64:
        """Canonical positions of all references together, ascending."""
        return np.unique(np.concatenate(self.drawn))

    def wanted_rows(self, part: int) -> Int64:
        """Rows of a part that are in a reference, ascending."""
        start, stop = self.parts.spans.bounds(part)
        first, last = np.searchsorted(self.wanted, [start, stop])
        return self.wanted[first:last] - start

    def references(self) -> Iterator[Reference]:
        """Read the references, one at a time in float32.

        Raises:
            InfrastructureError: a unit with reference rows no longer exists.
        """
        for positions_M in self.drawn:
            raw_MD = self._reference_rows[np.searchsorted(self.wanted, positions_M)]
            yield Reference(positions_M, *split_sides(raw_MD, self.params.sides))

    @cached_property
    def _reference_rows(self) -> Float16:
        """Embeddings of the wanted rows, float16 [W, D] or [W, 2 D]."""
        parts = [part for part in range(self.parts.spans.n_parts) if len(self.wanted_rows(part))]
        with ThreadPoolExecutor(_THREADS) as threads:
            return np.concatenate(list(threads.map(self._read_rows, parts)))

    def _read_rows(self, part: int) -> Float16:
        receipt = artifacts.read_receipt(self.folder, self.rows_key(part))
        if receipt is None:
            url = artifacts.unit_url(self.folder, self.rows_key(part), ROWS)
            raise InfrastructureError(f"{store.redact(url)}: not found; run again to rebuild the unit")
        data = artifacts.read_file(self.folder, receipt, ROWS)
        rows: Float16 = load_array(data)
        return rows


def read_sides(job: RescoreJob, part: int) -> Float16:
    """Read the embeddings of a part that the scores need: float16 [N, D], or [N, 2 D] for both sides."""
    return read_embeddings(job.parts, part, job.params.embeddings, job.params.sides)


def split_sides(raw_ND: Float16, sides: FeatureKind, first_row: int = 0) -> tuple[Float32, Float32]:
    """Return unit-norm image and text rows, float32 [N, D] each; without text, [N, 0].

    Args:
        raw_ND: from `read_sides`.
        sides: as given to it.
        first_row: canonical position of row 0, for messages.
    """
    if sides == "image":
        return unit_rows(raw_ND, first_row), np.zeros((len(raw_ND), 0), np.float32)
    half = raw_ND.shape[1] // 2
    return unit_rows(raw_ND[:, :half], first_row), unit_rows(raw_ND[:, half:], first_row)
