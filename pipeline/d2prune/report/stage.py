"""The report stage: reads a run's artifacts and images, writes one self-contained HTML page.

The page is `work_dir/report/<fingerprint>/report.html`. The fingerprint covers the artifacts and the
parameters, not the timings: when the same run is repeated, the page is replaced by one with the new
timings.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from d2prune import store
from d2prune.config.model import RunConfig
from d2prune.d2.gamma import describe_gamma
from d2prune.inputs.pool import InputPool
from d2prune.output import training
from d2prune.report.record import ReportParams, RunRecord, WrittenOutput
from d2prune.report.trend import FILE, write_points
from d2prune.stage.earlier import EarlierRun, make_run_id
from d2prune.stage.record import Built, Stage, StageRun
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)

MAX_PAGE_BYTES = 5_000_000


def run_record(
    config: RunConfig,
    pool: InputPool,
    manifests: Mapping[str, Manifest],
    seconds: Mapping[str, float],
    earlier: EarlierRun | None = None,
) -> RunRecord:
    """Gather what the report and the terminal summary show of a run that reached `select`.

    Args:
        config: the run; `output` without placeholders.
        pool: the input.
        manifests: stage -> artifact, at least up to `select`.
        seconds: stage -> time spent in this run.
        earlier: the run that this one continues.
    """
    written = _written_output(config, pool, manifests) if "write" in manifests else None
    return RunRecord(
        work_dir=config.work_dir,
        embed=manifests["embed"],
        graph=manifests["graph"],
        select=manifests["select"],
        shard_urls=tuple(shard.url for shard in pool.shards),
        has_images=pool.has_images,
        written=written,
        score_name=config.score.difficulty,
        score_offset=manifests["rank"].facts["offset"],
        is_clamped=manifests["rank"].params["offset"] != "auto",
        method=config.select.method,
        features=config.graph.features,
        embeddings_file=config.embeddings_file,
        timings=seconds,
        parameters={
            **{stage: manifest.params for stage, manifest in manifests.items() if stage != "report"},
            "rank": _describe_rank(manifests["rank"]),
        },
        dedup=manifests.get("dedup"),
        input=(config.input,) if isinstance(config.input, str) else tuple(config.input),
        date=datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        rank=manifests["rank"],
        rescore=manifests.get("rescore"),
        run_id=make_run_id(manifests["write"].fingerprint) if "write" in manifests else "",
        earlier=earlier,
    )


def _describe_rank(rank: Manifest) -> dict[str, object]:
    """The parameters of the ranking, with the numbers that its gammas stand for."""
    gammas = {
        name: describe_gamma(rank.params[name], rank.facts[name])
        for name in ("gamma_forward", "gamma_reverse")
    }
    return {**rank.params, **gammas}


def _written_output(config: RunConfig, pool: InputPool, manifests: Mapping[str, Manifest]) -> WrittenOutput:
    write = manifests["write"]
    samples = write.counters["written"]
    if not pool.has_images:
        # No tar has uids that were hashed from embeddings.
        has_uids = manifests["embed"].params["columns"]["uid"] is not None
        command = training.reshard_command(config.output) if has_uids else ""
        return WrittenOutput(config.output, 0, samples, reshard_command=command)
    shards = write.counters.get("tars", 0)
    command = training.command(config.output, shards, samples)
    if config.write.stable:
        command = training.script_command(config.output)
    return WrittenOutput(config.output, shards, samples, train_command=command)


def write_report(record: RunRecord, params: ReportParams) -> str:
    """Render the page of a run and store it.

    Returns:
        The page's URL.

    Raises:
        BooksError: the artifacts belong to different runs.
        InfrastructureError: an artifact cannot be read, or the page cannot be written.
    """
    # These load Jinja and Pillow, and a run that is up to date needs neither.
    from d2prune.report.collect import collect
    from d2prune.report.page import render

    data = collect(record, params)
    page = render(data).encode("utf-8")
    if len(page) > MAX_PAGE_BYTES:
        log.warning(
            "report: the page has %d bytes; expected at most %d. Lower report.gallery.",
            len(page),
            MAX_PAGE_BYTES,
        )
    url = page_url(record, params)
    if data.trend:
        write_points(url, data.trend)
    store.write_bytes(url, page)
    return url


def page_url(record: RunRecord, params: ReportParams) -> str:
    """URL of a run's page, whether or not the page exists."""
    written = (store.redact(record.written.url), record.written.shards) if record.written else None
    identity = artifacts.fingerprint(
        record.embed.fingerprint,
        record.graph.fingerprint,
        record.select.fingerprint,
        written,
        params,
    )
    return store.join(record.work_dir, "report", identity, "report.html")


def _params(config: RunConfig, pool: InputPool) -> ReportParams:
    return ReportParams(gallery=config.report.gallery, max_pixels=config.embed.max_pixels)


def _run_record(run: StageRun, earlier: EarlierRun | None = None) -> RunRecord:
    return run_record(run.config, run.pool, run.manifests, run.seconds, earlier)


def _locate_page(run: StageRun) -> str:
    return page_url(_run_record(run), run.planned["report"].params)


def _find_page(stage: Stage, run: StageRun) -> Manifest | None:
    """Skip the stage only if every earlier stage was skipped too; otherwise the timings are new."""
    try:
        if run.seconds or not store.info(_locate_page(run)).size:
            return None
    except FileNotFoundError:
        return None
    planned = run.planned[stage.name]
    return Manifest(stage.name, planned.fingerprint, {}, dict(planned.inputs), (), {})


def _build(run: StageRun) -> Built:
    write_report(_run_record(run, run.find_earlier()), run.planned["report"].params)
    return Built(())


STAGE = Stage(
    name="report",
    inputs=("write",),
    params=_params,
    build=_build,
    check=lambda run, built: None,
    find=_find_page,
    location=_locate_page,
    has_manifest=False,
    other_files=(FILE,),
)
