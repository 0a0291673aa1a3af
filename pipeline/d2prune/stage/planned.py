"""The identity and location of a stage's artifact, known before the artifact exists."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """The artifact that a stage will build, or has built.

    Attributes:
        stage: name of the stage.
        folder: URL of the stage's folder, `work_dir/<stage>`.
        params: the parameters that change the result, as a frozen dataclass.
        inputs: name -> fingerprint of what the artifact is made from.
    """

    stage: str
    folder: str
    params: Any
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Identity of the artifact: a hash of its parameters and its inputs."""
        return artifacts.fingerprint(self.stage, self.params, dict(self.inputs))

    def find(self) -> Manifest | None:
        """Read the artifact's manifest; None if the artifact is not complete."""
        return artifacts.read_manifest(self.folder, self.fingerprint)

    def log_changed_params(self) -> None:
        """Log which parameters differ from the most similar artifact that exists."""
        changed = artifacts.changed_params(self.folder, dataclasses.asdict(self.params))
        if changed:
            log.info("%s: %s", self.stage, "; ".join(changed))
