"""The report stage: a run's artifacts in, one self-contained HTML page out."""

from collections.abc import Mapping

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.inputs.pool import InputPool
from d2prune.output import training
from d2prune.report.data import ReportParams, RunRecord, Written
from d2prune.report.write import page_url, write_report
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store.artifacts import Manifest


def run_record(
    config: RunConfig, pool: InputPool, manifests: Mapping[str, Manifest], seconds: Mapping[str, float]
) -> RunRecord:
    """What the report and the summary show of a run that reached `select`.

    Args:
        config: the run; `output` without placeholders.
        pool: the input.
        manifests: stage -> artifact, at least up to `select`.
        seconds: stage -> time spent in this run.
    """
    written = None
    if "write" in manifests:
        counters = manifests["write"].counters
        shards, samples = counters.get("tars", 0), counters["written"]
        if pool.has_images:
            command = training.command(config.output, shards, samples)
            written = Written(config.output, shards, samples, train_command=command)
        else:
            command = training.reshard_command(config.output)
            written = Written(config.output, 0, samples, reshard_command=command)
    return RunRecord(
        work_dir=config.work_dir,
        embed=manifests["embed"],
        graph=manifests["graph"],
        select=manifests["select"],
        shards=pool.shards,
        has_pictures=pool.has_images,
        written=written,
        score_name=config.score.difficulty,
        score_offset=manifests["rank"].facts["offset"],
        features=config.graph.features,
        embeddings=config.embeddings_file,
        timings=seconds,
        parameters={stage: manifest.params for stage, manifest in manifests.items() if stage != "report"},
    )


def _params(config: RunConfig, pool: InputPool) -> ReportParams:
    return ReportParams(gallery=config.report.gallery, max_pixels=config.embed.max_pixels)


def _record(run: StageRun) -> RunRecord:
    return run_record(run.config, run.pool, run.manifests, run.seconds)


def _locate(run: StageRun) -> str:
    return page_url(_record(run), run.planned["report"].params)


def _find(stage: Stage, run: StageRun) -> Manifest | None:
    """The page of a run in which every stage was already complete; any other run updates it with its timings."""
    if run.seconds or not store.exists(_locate(run)):
        return None
    planned = run.planned[stage.name]
    return Manifest(stage.name, planned.fingerprint, {}, dict(planned.inputs), (), {})


def _build(run: StageRun) -> Built:
    write_report(_record(run), run.planned["report"].params)
    return Built(())


STAGE = Stage(
    name="report",
    inputs=("write",),
    params=_params,
    build=_build,
    check=lambda run, built: None,
    find=_find,
    location=_locate,
    has_manifest=False,
)
