"""One ranking, as all of its workers see it."""

from dataclasses import dataclass

from d2prune import store
from d2prune.parts.files import NEIGHBORS
from d2prune.parts.reader import Parts
from d2prune.parts.spans import Spans
from d2prune.rank.params import RankParams, Resolved
from d2prune.store import artifacts


@dataclass(frozen=True)
class RankJob:
    """What the workers of one ranking share; picklable.

    Attributes:
        parts: the pool, with the units of embed and graph.
        folder: `work_dir/rank`.
        params: of the stage.
        resolved: the parameters that depend on the pool.
        bounds: partition p owns parts bounds[p] to bounds[p + 1] - 1.
    """

    parts: Parts
    folder: str
    params: RankParams
    resolved: Resolved
    bounds: tuple[int, ...]

    @property
    def owners(self) -> Spans:
        """Canonical positions of each partition."""
        return Spans(self.parts.spans.starts[list(self.bounds)])

    @property
    def checkpoints(self) -> str:
        """Folder of the workers' checkpoints."""
        identity = artifacts.fingerprint(self.params, self.resolved.offset, self._input_keys, self.bounds)
        return store.join(self.folder, "checkpoints", identity)

    def unit_key(self, part: int) -> str:
        """Key of a part's unit.

        Independent of the partitions, which do not change the result, and of the resolved gammas,
        which follow from the parameters and the graph.
        """
        return artifacts.unit_key(f"{part:08d}", self.params, self.resolved.offset, self._input_keys)

    @property
    def _input_keys(self) -> str | tuple[str, str]:
        # Any part's key identifies the whole graph, since every row depends on the whole pool, and all
        # scores that compare with the pool.
        graph, rescored = self.parts.receipt(0, NEIGHBORS).key, self.parts.units("rescore")
        return (graph, rescored[0].key) if rescored else graph
