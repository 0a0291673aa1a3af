"""What a run will make, by name: the identity of every artifact, before anything starts.

An artifact's fingerprint follows from its parameters and from the fingerprints of its inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from d2prune.config.model import RunConfig
from d2prune.inputs.pool import InputPool, open_pool
from d2prune.runs.stages import STAGES
from d2prune.stage.planned import Planned, plan_artifact


@dataclass(frozen=True)
class RunPlan:
    """A run before it starts.

    Attributes:
        pool: the input.
        artifacts: stage -> its artifact.
    """

    pool: InputPool
    artifacts: Mapping[str, Planned]

    def __getitem__(self, stage: str) -> Planned:
        return self.artifacts[stage]

    @property
    def identity(self) -> str:
        """Fingerprint of everything that decides the run's output."""
        return next(self.artifacts[stage.name].fingerprint for stage in STAGES if stage.is_output)


def plan_run(config: RunConfig) -> RunPlan:
    """Look at the input and name every artifact; nothing is written.

    Raises:
        UserError: the input or the model is missing, or they do not fit together.
    """
    pool = open_pool(config.input)
    fingerprints = {"pool": pool.identity}
    planned = {}
    for stage in STAGES:
        inputs = {name: fingerprints[name] for name in stage.inputs}
        artifact = plan_artifact(config.work_dir, stage.name, stage.params(config, pool), inputs)
        planned[stage.name] = artifact
        fingerprints[stage.name] = artifact.fingerprint
    return RunPlan(pool, planned)
