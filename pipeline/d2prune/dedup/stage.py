"""The dedup stage: graph and difficulty in; duplicates, and the graph without them, out.

What builds it is imported when it is called: it loads numba.
"""

from d2prune.config.model import RunConfig
from d2prune.dedup.params import DedupParams
from d2prune.inputs.pool import InputPool
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.stage.units import delete_units
from d2prune.store import artifacts


def _params(config: RunConfig, pool: InputPool) -> DedupParams:
    return DedupParams(config.dedup.exact, config.dedup.near, config.score.difficulty)


def _build(run: StageRun) -> Built:
    from d2prune.dedup.driver import plan_dedup, run_dedup

    planned, resources = run.planned["dedup"], run.one_core_each()
    parts = run.parts("embed", "rescore", "graph")
    job = plan_dedup(parts, planned.folder, planned.fingerprint, planned.params, resources.workers)
    receipts = run_dedup(job, run.executor, resources)
    intermediate = [*job.hashes_keys, *job.copies_keys]
    return Built(receipts, when_committed=lambda: delete_units(planned.folder, intermediate))


def _check(run: StageRun, built: Built) -> None:
    names = ("unique", "cut_off", "duplicates", "near_duplicates")
    counts = {name: built.counters[name] for name in names}
    artifacts.balance("dedup", run.manifests["embed"].counters["embedded"], counts)


STAGE = Stage(
    name="dedup",
    inputs=("graph",),
    params=_params,
    build=_build,
    check=_check,
    more_inputs=lambda config: ("rescore",) if config.find_pair_scores(config.score.difficulty) else (),
    applies=lambda config: config.dedup.applies,
)
