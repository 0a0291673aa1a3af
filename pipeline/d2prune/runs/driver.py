"""A run: every stage in order, those that are already complete skipped.

What a run will make is known before it starts (`runs/plan.py`): so it can tell what is complete, what
is left to do, and whether the output folder is its own, before it writes anything.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.execution import Executor, Guarded, InProcess, OnRay
from d2prune.inputs.find import SourceShard
from d2prune.inputs.pool import InputPool
from d2prune.runs import history
from d2prune.runs.plan import RunPlan, plan_run
from d2prune.runs.stages import STAGES
from d2prune.stage.record import StageRun
from d2prune.store import lease
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        pool: the input.
        manifests: stage -> its artifact, of each stage that was reached.
        seconds: stage -> time spent in this run; a stage that was already complete is not listed.
        report: URL of the page; None if the run stopped earlier.
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
    config: RunConfig, executor: Executor | None = None, stop_after: str = "report", use_ray: bool = True
) -> RunResult:
    """Run every stage that is not complete yet, up to and including `stop_after`.

    Args:
        config: the run.
        executor: where units run. Default: as `config.ray` asks for, opened when there is work to do.
        stop_after: name of the last stage to run.
        use_ray: False: the default executor is this process.

    Raises:
        UserError: the input, the model or an option is wrong, or the output folder holds another run's data.
        BusyError: another run is in progress in this work_dir, or has taken it over from this one.
        BooksError: a stage lost or invented a sample.
        InfrastructureError: storage or workers failed for longer than retries last; the same call resumes.
    """
    if stop_after not in (names := [stage.name for stage in STAGES]):
        raise UserError(f"stop_after {stop_after!r}: expected one of {', '.join(names)}")
    plan = plan_run(config)
    config = config.model_copy(update={"output": history.output_of(config.output, plan.identity)})
    for stage in STAGES:
        stage.preflight(config, plan[stage.name])
    with lease.hold(config.work_dir) as held, contextlib.ExitStack() as stack:

        def start() -> Executor:
            # The lease is this run's, so no other run has uploads in progress there.
            store.sweep_uploads(config.work_dir)
            opened = executor or stack.enter_context(open_executor(config, use_ray))
            return Guarded(opened, held.check)

        state = StageRun(config, plan.pool, plan.artifacts, held.check, start)
        return _run_stages(state, plan, stop_after)


@contextlib.contextmanager
def open_executor(config: RunConfig, use_ray: bool) -> Iterator[Executor]:
    """The executor that the configuration asks for, closed at the end."""
    executor: Executor = OnRay(config.ray.address, config.ray.workers) if use_ray else InProcess()
    try:
        yield executor
    finally:
        executor.close()


def _run_stages(run: StageRun, plan: RunPlan, stop_after: str) -> RunResult:
    location: str | None = None
    for stage in STAGES:
        start = time.monotonic()
        found = stage.find(stage, run)
        run.guard()
        if found is not None:
            log.info("%s: already complete, skipped", stage.name)
            run.manifests[stage.name] = found
        else:
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
    """Enter the complete output into the list of runs; a scheduled one becomes the latest."""
    if not run.seconds:
        log.info("up to date: %s", store.redact(run.config.output))
    fingerprints = {name: manifest.fingerprint for name, manifest in run.manifests.items()}
    (page,) = [stage.location(run) for stage in STAGES if stage.location]
    history.publish(run.config.work_dir, run.config.output, plan.identity, fingerprints, page)
