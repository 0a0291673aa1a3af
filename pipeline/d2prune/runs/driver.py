"""Run every stage in order, skipping those that are already complete.

The plan (`runs/plan.py`) names every artifact before the run starts. So the driver knows what is
complete, what is left to do and whether the output folder belongs to this run before it writes
anything.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.console import format_bytes
from d2prune.errors import LostInputError, UserError
from d2prune.execution import Executor, Guarded, InProcess, OnRay, check_address, check_cluster
from d2prune.execution.progress import Live
from d2prune.extras import import_optional, require
from d2prune.inputs.find import SourceShard
from d2prune.inputs.pool import InputPool
from d2prune.runs import history
from d2prune.runs.placement import fits_here
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.runs.stages import STAGES
from d2prune.stage.rebuilding import rebuild_damaged
from d2prune.stage.record import StageRun
from d2prune.store import lease
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        pool: the input.
        manifests: stage -> its artifact, for every stage up to the last one that ran.
        seconds: stage -> seconds spent building it; stages that were already complete are left out.
        report: URL of the report; None if the run stopped before it.
        output: URL of the output folder, without placeholders.
    """

    pool: InputPool
    manifests: Mapping[str, Manifest]
    seconds: Mapping[str, float]
    report: str | None
    output: str

    @property
    def shards(self) -> tuple[SourceShard, ...]:
        """The input, in canonical order."""
        return self.pool.shards


def run(
    config: RunConfig, executor: Executor | None = None, stop_after: str | None = None, use_ray: bool = True
) -> RunResult:
    """Run every stage that is not complete yet, up to and including `stop_after`.

    Args:
        config: the configuration.
        executor: runs the units. Default: the one `config.ray` describes, opened when needed.
        stop_after: name of the last stage to run. Default: all stages.
        use_ray: False: the default executor is this process.

    Raises:
        UserError: the input, the model or an option is wrong, or the output holds other data.
        BusyError: another run is in progress in this work_dir, or took over this run's lease.
        BooksError: the sample counts of a stage do not balance.
        InfrastructureError: storage or workers failed for longer than retries last; the same call
            resumes.
    """
    if executor is None and use_ray:
        require("ray", "a run on Ray", otherwise="pass --no-ray")
        check_address(config.ray.address)
    try:
        return _plan_and_run(config, executor, stop_after, use_ray)
    except LostInputError:
        # Planning again logs what takes its place, or raises what the configuration must not name.
        return _plan_and_run(config, executor, stop_after, use_ray)


def _plan_and_run(
    config: RunConfig, executor: Executor | None, stop_after: str | None, use_ray: bool
) -> RunResult:
    with Live("run: listing the input", 0, ""):
        plan = plan_run(config)
    if stop_after not in (None, *plan.artifacts):
        raise UserError(f"stop_after = {stop_after}: expected one of {', '.join(plan.artifacts)}")
    config = config.model_copy(update={"output": history.fill_run_id(config.output, plan.identity)})
    for stage in (stage for stage in STAGES if stage.name in plan.artifacts):
        stage.preflight(config, plan.pool, plan[stage.name])
        if stage.name == stop_after:
            break
    with lease.hold(config.work_dir) as held, contextlib.ExitStack() as stack:
        shards = plan.pool.shards
        log.info("input: %d files, %s", len(shards), format_bytes(sum(shard.size for shard in shards)))
        # This run holds the lease, so uploads in progress there are leftovers of killed runs.
        store.sweep_temporaries(config.work_dir)
        store.sweep_uploads(config.work_dir)

        def open_guarded() -> Executor:
            opened = executor or stack.enter_context(open_executor(config, use_ray))
            return Guarded(opened, held.check)

        state = StageRun(config, plan.pool, plan.artifacts, held.check, open_guarded)
        state.may_move = executor is None and use_ray
        return rebuild_damaged(lambda: _run_stages(state, plan, stop_after), held.check)


@contextlib.contextmanager
def open_executor(config: RunConfig, use_ray: bool) -> Iterator[Executor]:
    """Open the executor that the configuration describes, and close it at the end."""
    if use_ray:
        # Before Ray is loaded, for the reason given in job.py.
        import_optional("torch")
    executor: Executor = OnRay(config.ray.address, config.ray.workers) if use_ray else InProcess()
    try:
        yield executor
    finally:
        executor.close()


def _run_stages(run: StageRun, plan: RunPlan, stop_after: str | None) -> RunResult:
    location: str | None = None
    run.manifests.clear()
    for stage in (stage for stage in STAGES if stage.name in plan.artifacts):
        start = time.monotonic()
        if stage.is_output:
            history.announce(run.config.work_dir, run.config.output, plan.identity)
        found = stage.find(stage, run)
        run.guard()
        if found is not None:
            log.info("%s: already complete, skipped", stage.name)
            run.manifests[stage.name] = found
        else:
            if run.may_move and not run.seconds:
                # A wrong address is reported now, not after hours, when the first stage needs the cluster.
                check_cluster(run.config.ray.address)
            run.here = run.may_move and fits_here(stage, run)
            with Live(stage.name, 0, ""):
                run.manifests[stage.name] = stage.make(run)
            run.seconds[stage.name] = time.monotonic() - start
            log.info("%s: done in %.1f s", stage.name, run.seconds[stage.name])
        stage.when_complete(run)
        location = stage.location(run) if stage.location else location
        if stage.is_output:
            _publish(run, plan)
        if stage.name == stop_after:
            break
    return RunResult(run.pool, run.manifests, run.seconds, location, run.config.output)


def _publish(run: StageRun, plan: RunPlan) -> None:
    """Add the complete output to the list of finished runs."""
    if not run.seconds:
        log.info("up to date: %s", store.redact(run.config.output))
    (page,) = [stage.location(run) for stage in STAGES if stage.location]
    config = run.config
    entry = history.publish(config.work_dir, config.output, plan.identity, run.manifests, page)
    run.find_earlier = partial(history.find_earlier, config.work_dir, entry)
