"""Plan a run: the identity of every artifact, before anything is built.

An artifact's fingerprint is a hash of its parameters and of the fingerprints of its inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.inputs.pool import InputPool, open_pool
from d2prune.runs.entries import RUN_ID
from d2prune.runs.history import read_runs
from d2prune.runs.stages import STAGES
from d2prune.stage.planned import Planned
from d2prune.store.artifacts import Manifest


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run.

    Attributes:
        pool: the input.
        artifacts: stage -> its artifact, in the order of the stages; only those that this run has.
    """

    pool: InputPool
    artifacts: Mapping[str, Planned]

    def __getitem__(self, stage: str) -> Planned:
        return self.artifacts[stage]

    def find(self, stage: str) -> Manifest | None:
        """Read the manifest of a stage; None if it is not complete or this run does not have it."""
        return self.artifacts[stage].find() if stage in self.artifacts else None

    @property
    def identity(self) -> str:
        """Fingerprint of everything that decides the output."""
        return next(self.artifacts[stage.name].fingerprint for stage in STAGES if stage.is_output)


def plan_run(config: RunConfig) -> RunPlan:
    """List the input and compute the fingerprint of every artifact. Writes nothing.

    Raises:
        UserError: the input or the model does not exist, or they do not fit together.
    """
    config = _resolve_run(config)
    pool = open_pool(config.input, config.written)
    fingerprints = {"pool": pool.identity}
    planned: dict[str, Planned] = {}
    for stage in STAGES:
        if not stage.applies(config):
            continue
        inputs = {name: fingerprints[name] for name in (*stage.inputs, *stage.more_inputs(config))}
        folder = store.join(config.work_dir, stage.name)
        found = Planned(stage.name, folder, stage.params(config, pool), inputs)
        planned[stage.name] = stage.add_inputs(config, pool, found, planned)
        fingerprints[stage.name] = planned[stage.name].fingerprint
    return RunPlan(pool, planned)


def _resolve_run(config: RunConfig) -> RunConfig:
    """Replace the id of a finished run in `graph.quantiser` by the fingerprint of its graph."""
    run_id = config.graph.quantiser
    if not RUN_ID.fullmatch(run_id):
        return config
    graphs = [entry.artifacts["graph"] for _, entry in read_runs(config.work_dir) if entry.run_id == run_id]
    if not graphs:
        raise UserError(
            f"graph.quantiser: found no run {run_id} in {store.redact(config.work_dir)}; expected one that "
            "`d2prune runs` lists"
        )
    return config.model_copy(update={"graph": config.graph.model_copy(update={"quantiser": graphs[0]})})
