"""A whole run: embed -> graph -> rank -> select -> write -> report, each finished stage skipped.

What is to be made is known before anything starts (`run_plan`). So a run can tell what is finished, what has to be
done, and whether the output folder is its own, before it touches anything.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pipeline import artifacts, lease, runs, stages, storage
from pipeline.artifacts import Manifest, Receipt
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution import Executor, Guarded, InProcess, OnRay, Resources
from pipeline.explore import sources
from pipeline.inputs.find import SourceShard
from pipeline.inputs.tables import TableShard
from pipeline.run_plan import STAGES, RunPlan, Stage, plan_run
from pipeline.stages import Planned

if TYPE_CHECKING:
    from pipeline.report import ReportParams, RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        shards: the input, in canonical order.
        manifests: the artifact of each stage that was reached.
        seconds: time spent per stage in this run; a stage that was finished before is not listed.
        report: URL of the page; None if the run stopped earlier.
        output: URL of the output folder, with its `{run_id}` filled in.
    """

    shards: tuple[SourceShard, ...]
    manifests: Mapping[str, Manifest]
    seconds: Mapping[str, float]
    report: str | None
    output: str


@contextlib.contextmanager
def open_executor(config: RunConfig, use_ray: bool = True) -> Iterator[Executor]:
    """The executor that the configuration asks for, closed at the end."""
    executor: Executor = OnRay(config.ray.address, config.ray.workers) if use_ray else InProcess()
    try:
        yield executor
    finally:
        executor.close()


def run(
    config: RunConfig, executor: Executor | None = None, stop_after: Stage = "report", use_ray: bool = True
) -> RunResult:
    """Run everything that is not finished yet, up to and with `stop_after`.

    Args:
        config: the run.
        executor: where units run; default: what `config.ray` says, opened when there is something to do.
        stop_after: the last stage to do.
        use_ray: False: the default is this process.

    Raises:
        UserError: the input, the model or an option is wrong, or the output folder holds another run's data.
        BusyError: another run is at work on this work_dir, or has taken it over from this one.
        BooksError: a stage lost or invented a sample.
        InfrastructureError: storage or workers failed for longer than retries bear; run the same again.
    """
    from pipeline.output import claim

    plan = plan_run(config)
    config = config.model_copy(update={"output": runs.output_of(config.output, plan.write.fingerprint)})
    claim.check(config.output, plan.write.fingerprint)
    with lease.hold(config.work_dir) as held, contextlib.ExitStack() as stack:

        def opened() -> Executor:
            return executor or stack.enter_context(open_executor(config, use_ray))

        return _Run(config, plan.guarded(held.check), opened, held.check, stop_after).all()


class _Run:
    """One run under way: the plan, and the manifests so far."""

    def __init__(
        self,
        config: RunConfig,
        plan: RunPlan,
        opened: Callable[[], Executor],
        guard: Callable[[], None],
        stop_after: Stage,
    ) -> None:
        self.config, self.plan, self.stop_after = config, plan, stop_after
        self.manifests: dict[str, Manifest] = {}
        self.seconds: dict[str, float] = {}
        self.report: str | None = None
        self._opened, self._guard = opened, guard

    @functools.cached_property
    def executor(self) -> Guarded:
        """Opened at the first unit: a run with nothing to do starts no Ray."""
        # The lease is ours, so nobody else is uploading there.
        storage.sweep_uploads(self.config.work_dir)
        return Guarded(self._opened(), self._guard)

    @property
    def many(self) -> Resources:
        """Of a stage whose units need a core each."""
        workers = self.config.ray.workers
        return Resources(workers=workers or self.executor.cpus(), grows=workers is None)

    @property
    def one(self) -> Resources:
        """Of a unit that has a machine to itself."""
        return Resources(workers=1, num_cpus=self.executor.cpus_per_node())

    def all(self) -> RunResult:
        for stage in STAGES:
            start = time.monotonic()
            found = self._found(stage)
            self._guard()
            if found is not None:
                log.info("%s: finished before, nothing to do", stage)
                self.manifests[stage] = found
            else:
                getattr(self, f"_{stage}")()
                self.seconds[stage] = time.monotonic() - start
                log.info("%s: done in %.1f s", stage, self.seconds[stage])
            if stage == "embed":
                sources.record(self.config.work_dir, self.plan.embed.fingerprint, self.plan.shards)
            if stage == "write":
                self._publish()
            if stage == self.stop_after:
                break
        return self.result()

    def result(self) -> RunResult:
        return RunResult(self.plan.shards, self.manifests, self.seconds, self.report, self.config.output)

    def _found(self, stage: Stage) -> Manifest | None:
        """The stage's artifact, if it is whole; an output that someone has emptied since is not."""
        if stage == "report":
            return None
        planned: Planned = getattr(self.plan, stage)
        found = planned.find()
        if stage == "write" and not storage.exists(storage.join(self.config.output, artifacts.MANIFEST)):
            return None
        return found

    def _embed(self) -> None:
        from pipeline.embed import stage
        from pipeline.embed.pace import pace
        from pipeline.embed.tables import check_dimensions

        planned, config, source = self.plan.embed, self.config.embed, self.plan.source
        num_gpus = 0.0 if source.is_tables else self.config.ray.num_gpus
        # A GPU is fed by its share of its machine's cores; on a core of its own, a worker decodes beside the model.
        cores = max(1.0, self.executor.cpus_per_gpu() * num_gpus)
        if isinstance(self.executor.inner, InProcess):
            cores = self.executor.cpus_per_node()

        resources = dataclasses.replace(self.many, num_cpus=cores, num_gpus=num_gpus, at_once=stage.AT_ONCE)
        helpers = self.executor.helpers(resources) if config.decode == "remote" else None

        def check(receipts: Sequence[Receipt]) -> None:
            counters = artifacts.sum_counters(receipts)
            books = {name: counters.get(name, 0) for name in (stage.EMBEDDED, stage.REJECTED, stage.FILTERED)}
            artifacts.balance("embed", counters[stage.READ], books)
            stage.check_reject_rate(counters, config.max_reject_rate)
            if not counters[stage.EMBEDDED]:
                raise UserError(f"input: none of {counters[stage.READ]} samples could be embedded")
            if source.is_tables:
                check_dimensions(receipts)

        self.manifests["embed"] = stages.complete(
            planned,
            self.executor,
            source.units(),
            source.make_worker(planned.folder, min(int(cores), stage.MAX_PROCESSES), config.image_timeout, helpers),
            resources,
            check,
            describe=pace(),
        )

    def _graph(self) -> None:
        from pipeline.graph import stage
        from pipeline.graph.params import Layout
        from pipeline.graph.sharded.build import clean

        planned, embed = self.plan.graph, self.manifests["embed"]
        stages.announce(planned)
        # A worker on Ray is one of many on its machine; in this process it is the only one.
        layout = Layout(threads=self.executor.cpus_per_node() if isinstance(self.executor.inner, InProcess) else 1)
        job = stage.plan(self.plan.embed.folder, embed.units, embed.fingerprint, planned.folder, planned.params, layout)
        one, num_gpus = self.one, self.config.ray.num_gpus
        if num_gpus:
            # The machine with most cores need not be the one with a GPU.
            cores = max(1.0, min(one.num_cpus, self.executor.cpus_per_gpu() * num_gpus))
            one = Resources(1, cores, num_gpus)
        many = Resources(self.many.workers, 1, num_gpus)
        job, receipts, facts = stage.build(job, self.executor, one, many)

        def check(receipts: Sequence[Receipt]) -> None:
            nodes = artifacts.sum_counters(receipts)["nodes"]
            artifacts.balance("graph", embed.counters["embedded"], {"nodes": nodes})

        self.manifests["graph"] = stages.commit(planned, receipts, check, lambda receipts: facts)
        clean(job)

    def _rank(self) -> None:
        from pipeline.selection import ranking
        from pipeline.selection.pool import Pool

        planned, embed, graph = self.plan.rank, self.manifests["embed"], self.manifests["graph"]
        stages.announce(planned)
        pool = Pool(self.plan.embed.folder, embed.units, self.plan.graph.folder, graph.units, planned.folder)
        offset = ranking.resolve_offset(pool, planned.params)
        receipts = ranking.rank(pool, planned.params, offset, self.executor, self.many)

        def check(receipts: Sequence[Receipt]) -> None:
            counters = artifacts.sum_counters(receipts)
            books = {name: counters[name] for name in ("ranked", "cut_off")}
            artifacts.balance("rank", embed.counters["embedded"], books)

        self.manifests["rank"] = stages.commit(planned, receipts, check, lambda receipts: {"offset": offset})

    def _select(self) -> None:
        from pipeline.selection import ranking, stage

        if not ranking.names_suppressors(self.manifests["rank"].units):
            log.info("rank: made by an earlier version, which did not name suppressors; made again")
            self._rank()
        planned, embed, rank = self.plan.select, self.manifests["embed"], self.manifests["rank"]
        line = stage.draw_line(self.plan.rank.folder, rank, self.plan.embed.folder, embed.units, planned.params)

        def check(receipts: Sequence[Receipt]) -> None:
            counters = artifacts.sum_counters(receipts)
            artifacts.balance("select", line.budget, {"kept": counters["kept"]})
            artifacts.balance(
                "select",
                embed.counters["embedded"],
                {name: counters[name] for name in ("kept", "below_budget", "cut_off")},
            )

        self.manifests["select"] = stages.complete(
            planned,
            self.executor,
            stage.plan_select(rank.units, line, planned.params),
            partial(
                stage.SelectWorker, self.plan.embed.folder, self.plan.rank.folder, planned.folder, tuple(embed.units)
            ),
            self.many,
            check,
            lambda receipts: {"budget": line.budget},
        )

    def _write(self) -> None:
        from pipeline.output import claim, finish, stage

        planned, config = self.plan.write, self.config
        claim.claim(config.output, planned.fingerprint)
        claim.sweep(config.output)
        units = stage.plan(self.plan.shards, self.manifests["embed"], self.manifests["select"], planned.params)

        def check(receipts: Sequence[Receipt]) -> None:
            written = artifacts.sum_counters(receipts).get("written", 0)
            artifacts.balance("write", self.manifests["select"].counters["kept"], {"written": written})

        manifest = stages.complete(
            planned,
            self.executor,
            units,
            partial(stage.Writer, config.work_dir, config.output),
            self.many,
            check,
            finished=stage.finished(config.work_dir, config.output, units),
        )
        self._guard()
        finish.finish(
            config.output,
            config.work_dir,
            planned.fingerprint,
            planned.params,
            self.plan.shards,
            self.manifests["select"],
            units,
            manifest.units,
        )
        self.manifests["write"] = manifest

    def _publish(self) -> None:
        """Enter the finished output into the list of runs; a scheduled one becomes the latest."""
        from pipeline import report

        if not self.seconds:
            log.info("nothing new: %s has all of it", storage.redact(self.config.output))
        fingerprints = {stage: manifest.fingerprint for stage, manifest in self.manifests.items()}
        page = report.page_url(run_record(self.config, self.result()), self._report_params())
        runs.publish(self.config.work_dir, self.config.output, fingerprints, page)

    def _report_params(self) -> "ReportParams":
        from pipeline import report

        return report.ReportParams(gallery=self.config.report.gallery, max_pixels=self.config.embed.max_pixels)

    def _report(self) -> None:
        from pipeline import report

        params = self._report_params()
        record = run_record(self.config, self.result())
        url = report.page_url(record, params)
        if not self.seconds and storage.exists(url):
            log.info("report: finished before, nothing to do")
            self.report = url
        else:
            self.report = report.write_report(record, params)


def run_record(config: RunConfig, result: RunResult) -> "RunRecord":
    """What the report and the summary are told of a run that reached `select`."""
    from pipeline.output import training
    from pipeline.report import RunRecord, Written

    written = None
    has_pictures = not any(isinstance(shard, TableShard) for shard in result.shards)
    if "write" in result.manifests:
        counters = result.manifests["write"].counters
        shards, samples = counters.get("tars", 0), counters["written"]
        if has_pictures:
            written = Written(result.output, shards, samples, training.command(result.output, shards, samples))
        else:
            written = Written(result.output, 0, samples, reshard_command=training.reshard_command(result.output))
    return RunRecord(
        work_dir=config.work_dir,
        embed=result.manifests["embed"],
        graph=result.manifests["graph"],
        select=result.manifests["select"],
        shards=result.shards,
        has_pictures=has_pictures,
        written=written,
        score_name=config.score.difficulty,
        score_offset=result.manifests["rank"].facts["offset"],
        features=config.graph.features,
        embeddings=config.embeddings_file,
        timings=result.seconds,
        parameters={stage: manifest.params for stage, manifest in result.manifests.items()},
    )
