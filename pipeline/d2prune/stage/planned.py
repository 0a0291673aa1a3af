"""A stage's artifact by name: identity, location and manifest, before and after it exists."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A stage's artifact before it exists: all of it is known when the run starts.

    Attributes:
        stage: name of the stage, also that of its folder.
        folder: `work_dir/<stage>`.
        params: what changes the result, a frozen dataclass.
        inputs: name -> fingerprint of what the artifact is made from.
    """

    stage: str
    folder: str
    params: Any
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Identity of the artifact."""
        return artifacts.fingerprint(self.stage, self.params, dict(self.inputs))

    def find(self) -> Manifest | None:
        """The artifact, if a run has completed it."""
        return artifacts.read_manifest(self.folder, self.fingerprint)

    def log_changed_params(self) -> None:
        """Log which parameters differ from the nearest artifact that already exists."""
        changed = artifacts.changed_params(self.folder, dataclasses.asdict(self.params))
        if changed:
            log.info("%s: %s", self.stage, "; ".join(changed))


def plan_artifact(work_dir: str, stage: str, params: Any, inputs: Mapping[str, str]) -> Planned:
    """The artifact of `stage` in `work_dir`."""
    return Planned(stage, store.join(work_dir, stage), params, inputs)
