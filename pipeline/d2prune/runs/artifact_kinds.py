"""The kinds of artifacts that pruning knows: those of the stages, and the index of a graph.

The index is no stage: no output is made from it, and it may be built long after the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from d2prune.runs.entries import RunEntry
from d2prune.stage.record import Stage
from d2prune.store import artifacts

STAGE_NAME = "index"
VIEW, BODY, IDS, RECORD = "pool.faiss", "pool.ivfdata", "ids.parquet", "index.json"
"""Files of the merged view: what faiss opens, its lists, the table of samples, and the record of what the
view is made from."""

SHARD_VIEW, SHARD_BODY = "shard.faiss", "lists.ivfdata"
"""Files of a shard: the unit of one partition."""


def fingerprint_of(graph: str) -> str:
    """Fingerprint of the index of a graph; the embeddings are an input of the graph."""
    return artifacts.fingerprint(STAGE_NAME, {}, {"graph": graph})


@dataclass(frozen=True)
class ArtifactKind:
    """What pruning needs to know about one kind of artifact.

    Attributes:
        name: of its folder in the work_dir.
        identify: artifacts of a run -> the fingerprint of this one; None if the run has none.
        other_files: as of `Stage`.
        other_unit_keys: as of `Stage`.
    """

    name: str
    identify: Callable[[Mapping[str, str]], str | None]
    other_files: tuple[str, ...]
    other_unit_keys: Callable[[Mapping[str, Any]], Iterable[str]]

    @classmethod
    def of_stage(cls, stage: Stage) -> ArtifactKind:
        """The artifacts of a stage."""

        def unit_keys(manifest: Mapping[str, Any]) -> Iterable[str]:
            return [*stage.other_unit_keys(manifest), *stage.shared_unit_keys(manifest)]

        return cls(stage.name, lambda found: found.get(stage.name), stage.other_files, unit_keys)

    def find_identities(self, entries: Iterable[RunEntry]) -> set[str]:
        """Fingerprints of the artifacts of some runs."""
        found = (self.identify(entry.artifacts) for entry in entries)
        return {fingerprint for fingerprint in found if fingerprint is not None}


INDEX = ArtifactKind(
    STAGE_NAME,
    lambda found: fingerprint_of(found["graph"]) if "graph" in found else None,
    (VIEW, BODY, IDS, RECORD),
    lambda manifest: [manifest["facts"]["layout"]],
)
"""The index of a run's graph, whether it was built or not."""
