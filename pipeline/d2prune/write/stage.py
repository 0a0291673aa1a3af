"""The write stage: the decisions and the input tars in, the output folder out."""

from functools import partial

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.inputs.pool import InputPool
from d2prune.output import claim, layout, manifest
from d2prune.stage.planned import Planned
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.stage.units import Work
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest
from d2prune.write import worker
from d2prune.write.worker import WriteParams


def _params(config: RunConfig, pool: InputPool) -> WriteParams:
    return WriteParams(**config.write.model_dump())


def _check_output(config: RunConfig, planned: Planned) -> None:
    claim.check(config.output, planned.fingerprint)


def _find(stage: Stage, run: StageRun) -> Manifest | None:
    """The artifact, unless somebody has emptied the output since."""
    if not store.exists(store.join(run.config.output, layout.MANIFEST)):
        return None
    return run.planned[stage.name].find()


def _build(run: StageRun) -> Built:
    planned, work_dir, output = run.planned["write"], run.config.work_dir, run.config.output
    select = run.manifests["select"]
    claim.claim(output, planned.fingerprint)
    claim.sweep(output)
    units = worker.plan(run.pool.shards, run.manifests["embed"], select, planned.params)
    work = Work(
        "write",
        planned.folder,
        units,
        worker=partial(worker.Writer, work_dir, output),
        resources=run.one_core_each(),
        complete=worker.finished(work_dir, output, units),
    )
    receipts = run.run_units(work)

    def close_output() -> None:
        run.guard()
        identity, params = planned.fingerprint, planned.params
        manifest.finish(output, work_dir, identity, params, run.pool.shards, select, units, receipts)

    return Built(receipts, when_committed=close_output)


def _check(run: StageRun, built: Built) -> None:
    kept = run.manifests["select"].counters["kept"]
    artifacts.balance("write", kept, {"written": built.counters.get("written", 0)})


STAGE = Stage(
    name="write",
    inputs=("select",),
    params=_params,
    build=_build,
    check=_check,
    find=_find,
    preflight=_check_output,
    is_output=True,
)
