"""Reads a run's artifacts and returns what the page shows.

Decisions are streamed part by part, embeddings are read for a random sample of rows, and images for
the few samples that are shown. Sample counts are checked once more on the way: every embedded sample
is kept or dropped.
"""

import functools
import platform
import shlex
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.parts import files
from d2prune.parts.map_file import read_layout
from d2prune.parts.reader import Parts
from d2prune.report import coverage, describe, formatting, metrics
from d2prune.report.galleries import build_galleries
from d2prune.report.increment import read_increment
from d2prune.report.increment_data import Increment
from d2prune.report.outcome import CUT_OFF, NOT_RANKED, REASON_MEANINGS
from d2prune.report.page_data import FlowStep, Here, Metric, ReasonCount, ReportData
from d2prune.report.random_sample import RandomSample, read_random_sample
from d2prune.report.record import ReportParams, RunRecord
from d2prune.report.rejected import count_by_reason, read_examples
from d2prune.report.suppression import SuppressedSummary
from d2prune.report.survey import read_survey
from d2prune.report.tally import COLUMNS, Tally, bin_edges
from d2prune.report.trend import Point, extend, known, read_points
from d2prune.store import artifacts
from d2prune.store.schemas import DUPLICATE, NEAR_DUPLICATE
from d2prune.version import __version__

_PACKAGES = ("numpy", "pyarrow", "numba", "torch", "open_clip_torch", "ray", "pillow")


def collect(record: RunRecord, params: ReportParams) -> ReportData:
    """Read what the page shows.

    Raises:
        BooksError: the artifacts belong to different runs.
        InfrastructureError: an artifact cannot be read.
    """
    stages = {"embed": record.embed, "graph": record.graph, "dedup": record.dedup, "select": record.select}
    pool = Parts.of(record.work_dir, {name: found for name, found in stages.items() if found is not None})
    pool.check_aligned(files.DECISIONS)
    sample = read_random_sample(pool, record, params)
    tally = _count_decisions(pool, record, sample, params)
    survey = read_survey(pool, record, params)

    n_clusters = metrics.cluster_count(len(sample), params.clusters)
    clustering = metrics.cluster(sample.points_ND, n_clusters, params.seed)
    increment = read_increment(pool, record, params)
    galleries = build_galleries(pool, record, sample, survey, tally, clustering, params, increment)
    fraction = tally.kept / tally.samples if tally.samples else 0.0
    queries = coverage.draw_queries(sample, params.queries, params.seed)
    map_points, map_kept = _make_map(pool, record, sample, queries, params)
    curves = coverage.curves(sample, survey, record.score_name, queries, params.seed)
    suppressed = describe.suppressed(survey)
    here = coverage.measure_kept(sample, survey, queries)
    written = record.written
    return ReportData(
        title=f"d2prune kept {tally.kept:,} of {tally.samples:,} samples",
        made=describe.made(record),
        lead=_lead(record, tally),
        warning=describe.warning(suppressed, survey),
        headline=_headline(record, tally, suppressed),
        flow=_flow(record, tally),
        reasons=_reasons(pool, record, tally, params),
        score_label=record.score_name,
        method=record.method,
        difficulty=tally.histogram("difficulty"),
        clamped=(sum(tally.clamped.values()), tally.clamped[True]),
        clamp_limit=formatting.number(-record.score_offset),
        selection=tally.histogram("selection_score"),
        threshold=_single_threshold(record, tally),
        map_points=map_points,
        map_kept=map_kept,
        clusters=galleries.clusters,
        shifted=describe.shifted(survey),
        suppressed=suppressed,
        unlike=galleries.unlike,
        duplicates=describe.duplicates(survey, galleries.groups, record.dedup is not None),
        galleries=galleries.others,
        metrics=(
            _mean_score(record, tally),
            *coverage.compare_with_random(sample, queries, params.seed),
        ),
        here=here,
        curves=curves,
        fraction_rows=coverage.fraction_rows(curves, tally.samples, fraction),
        fraction=fraction,
        embedded=tally.samples,
        sampled=len(sample),
        graph=_graph(record),
        timings=_timings(record, tally),
        parameters=_parameters(record),
        versions=_versions(),
        locations=_locations(record),
        train_command=written.train_command if written else "",
        reshard_command=written.reshard_command if written else "",
        has_images=record.has_images,
        increment=increment,
        moved=galleries.moved,
        trend=_extend_trend(record, tally, here, increment),
    )


def _extend_trend(
    record: RunRecord, tally: Tally, here: Here | None, increment: Increment | None
) -> tuple[Point, ...]:
    """The points of the runs that this one continues, and its own."""
    if not record.run_id:
        return ()
    points: list[Point] = []
    earlier = record.earlier
    if earlier is not None:
        points = read_points(earlier.report)
        if not points and earlier.manifests:
            counters = earlier.manifests["select"].counters
            samples = earlier.manifests["embed"].counters.get("embedded", 0)
            recall = earlier.manifests["graph"].facts.get("recall")
            score = None if increment is None else increment.mean_score
            name, kept = earlier.score_name, counters.get("kept", 0)
            points = [Point(earlier.run_id, "", samples, kept, name, known(score), None, known(recall))]
    own = Point(
        record.run_id,
        record.date,
        tally.samples,
        tally.kept,
        record.score_name,
        known(tally.mean_score()[1]),
        known(here.copies if here else None),
        known(record.graph.facts.get("recall")),
        increment.settings if increment else (),
    )
    return extend(points, own)


def _make_map(
    pool: Parts, record: RunRecord, sample: RandomSample, queries: coverage.Queries, params: ReportParams
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Coordinates and outcome of the samples on the map: the one the explorer stored, or the queries."""
    found = read_layout(record.work_dir, record.graph.fingerprint, len(pool))
    if found is None:
        return coverage.lay_out(sample, queries, params.seed), sample.kept_N[queries.rows_Q]
    rng = np.random.default_rng(params.seed)
    chosen = np.sort(rng.permutation(len(found.positions_S))[: params.map_points])
    kept = pool.take(found.positions_S[chosen], files.DECISIONS, ["kept"])["kept"].to_numpy()
    return found.xy_S2[chosen], np.asarray(kept, bool)


def _count_decisions(pool: Parts, record: RunRecord, sample: RandomSample, params: ReportParams) -> Tally:
    """Tally every decision; the random sample gives the histograms their edges."""
    score_N = sample.score_N
    if record.is_clamped:
        score_N = score_N[score_N > -record.score_offset]
    tally = Tally(
        bin_edges(score_N),
        bin_edges(sample.selection_N),
        max(params.gallery, 1),
        record.score_offset,
        record.is_clamped,
    )
    for start, table in pool.read_all(files.DECISIONS, COLUMNS):
        tally.add(start, table)
    counts = {"kept": tally.kept, "dropped": tally.samples - tally.kept}
    artifacts.balance("report", record.embed.counters.get("embedded", len(pool)), counts)
    return tally


def _single_threshold(record: RunRecord, tally: Tally) -> float | None:
    """The threshold that holds for all samples; None with groups, or if nothing was kept or dropped."""
    is_split = 0 < tally.kept < tally.samples and record.select.params.get("groups") is None
    return tally.threshold if is_split else None


def _lead(record: RunRecord, tally: Tally) -> str:
    read = record.embed.counters.get("read", tally.samples)
    share = formatting.percent(tally.kept / tally.samples if tally.samples else None)
    pool_mean, kept_mean = (formatting.number(mean) for mean in tally.mean_score())
    return (
        f"Of {read:,} samples read, {tally.samples:,} were embedded; {tally.kept:,} of these ({share}) were "
        f"kept. The mean {record.score_name} is {kept_mean} for the kept samples, and {pool_mean} for the "
        f"pool.{_describe_cut_captions(record)}"
    )


def _describe_cut_captions(record: RunRecord) -> str:
    cut = record.embed.counters.get("caption-cut", 0)
    return f" {cut:,} captions were too long; models read their beginning." if cut else ""


def _headline(
    record: RunRecord, tally: Tally, suppressed: SuppressedSummary | None
) -> tuple[tuple[str, str, str], ...]:
    counters = record.embed.counters
    share = formatting.percent(tally.kept / (tally.samples or 1))
    pool_mean, kept_mean = (formatting.number(mean) for mean in tally.mean_score())
    recall, low, high = (
        formatting.number(record.graph.facts.get(name)) for name in ("recall", "recall_low", "recall_high")
    )
    cards = [
        (
            "Samples read",
            f"{counters.get('read', tally.samples):,}",
            f"{counters.get('rejected', 0):,} rejected",
        ),
        ("Kept", f"{tally.kept:,}", f"{share} of {tally.samples:,} embedded"),
        (f"Mean {record.score_name}", kept_mean, f"kept samples; pool: {pool_mean}"),
        ("Graph recall", recall, f"95% interval {low} to {high}"),
    ]
    if suppressed:
        share = formatting.percent(suppressed.share, 0)
        note = f"of {suppressed.samples:,} samples dropped by suppression alone"
        cards.append(("Suppressed, no near-duplicate", share, note))
    if record.written and record.has_images:
        cards.append(("Shards written", f"{record.written.shards:,}", f"{record.written.samples:,} samples"))
    elif record.written:
        cards.append(("Subset written", f"{record.written.samples:,}", "samples; no tars yet"))
    return tuple(cards)


def _mean_score(record: RunRecord, tally: Tally) -> Metric:
    pool_mean, kept_mean = (formatting.number(mean) for mean in tally.mean_score())
    name = record.score_name
    return Metric(f"Mean {name}", "the score the filter starts from, over all samples", pool_mean, kept_mean)


def _flow(record: RunRecord, tally: Tally) -> tuple[FlowStep, ...]:
    counters = record.embed.counters
    rejected, filtered = counters.get("rejected", 0), counters.get("filtered", 0)
    cut_off = tally.reasons.get(CUT_OFF, 0)
    read = counters.get("read", tally.samples + rejected)
    steps = [FlowStep("Read", read)]
    if filtered:
        steps.append(FlowStep("Passed the filters", read - filtered, filtered, "filtered"))
    steps.append(FlowStep("Embedded", tally.samples, rejected, "rejected"))
    if cut_off:
        steps.append(FlowStep("Passed the cut-off", tally.samples - cut_off, cut_off, "cut off"))
    unranked = sum(tally.reasons.get(reason, 0) for reason in NOT_RANKED)
    if unranked > cut_off:
        steps.append(
            FlowStep("Without duplicates", tally.samples - unranked, unranked - cut_off, "duplicates")
        )
    steps.append(FlowStep("Kept", tally.kept, tally.samples - unranked - tally.kept, "below the threshold"))
    if record.written:
        written = record.written.samples
        steps.append(FlowStep("Written", written, max(tally.kept - written, 0), "not written"))
    return tuple(steps)


def _reasons(pool: Parts, record: RunRecord, tally: Tally, params: ReportParams) -> tuple[ReasonCount, ...]:
    examples = read_examples(pool, params.examples)
    counts = [("embed", reason, count) for reason, count in count_by_reason(record.embed.counters).items()]
    for reason, count in sorted(tally.reasons.items()):
        if reason != "kept":
            is_duplicate = reason in (DUPLICATE, NEAR_DUPLICATE)
            counts.append(("dedup" if is_duplicate else "select", reason, count))
    return tuple(
        ReasonCount(stage, reason, count, REASON_MEANINGS.get(reason, ""), examples.get(reason, ()))
        for stage, reason, count in counts
    )


def _graph(record: RunRecord) -> tuple[tuple[str, str], ...]:
    # The number of edges is a counter, summed over the units; the rest are facts of the artifact.
    facts = {**record.graph.counters, **record.graph.facts}
    names = (
        ("n_neighbors", "Neighbours per sample (k)"),
        ("edges", "Edges"),
        ("nlist", "Index lists (nlist)"),
        ("nprobe", "Lists searched per sample (nprobe)"),
    )
    rows = [(f"Recall@{facts.get('n_neighbors', 'k')}", formatting.recall(facts))]
    rows += [(label, f"{facts[name]:,}") for name, label in names if isinstance(facts.get(name), int)]
    return tuple(rows)


def _timings(record: RunRecord, tally: Tally) -> tuple[tuple[str, str, str], ...]:
    samples = {
        "embed": record.embed.counters.get("read", tally.samples),
        "rescore": tally.samples,
        "graph": tally.samples,
        "dedup": tally.samples,
        "rank": tally.samples,
        "select": tally.samples,
        "write": tally.kept,
    }
    return tuple(
        (
            stage,
            formatting.duration(seconds),
            f"{samples[stage] / seconds:,.0f} samples/s"
            if stage in samples and seconds > 0
            else formatting.DASH,
        )
        for stage, seconds in record.timings.items()
    )


def _parameters(record: RunRecord) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    return tuple(
        (stage, tuple((name, formatting.parameter(value)) for name, value in sorted(values.items())))
        for stage, values in record.parameters.items()
    )


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("d2prune", __version__), ("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _locations(record: RunRecord) -> tuple[tuple[str, str], ...]:
    work_dir = store.redact(record.work_dir)
    rows = [("Artifacts", work_dir)]
    if record.written:
        rows.insert(0, ("Shards" if record.has_images else "Subset", store.redact(record.written.url)))
    rows += [
        ("Explain a decision", f"d2prune explain {shlex.quote(work_dir)} UID"),
        ("Explore all samples", f"d2prune explore {shlex.quote(work_dir)}"),
        ("Compare other settings", "d2prune sweep --config run.yaml --fractions 0.1,0.3,0.5"),
    ]
    rows += [(f"{m.stage} artifact", m.fingerprint) for m in (record.embed, record.graph, record.select)]
    return tuple(rows)
