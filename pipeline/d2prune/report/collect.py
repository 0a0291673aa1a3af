"""A run's artifacts -> `ReportData`.

Decisions are streamed part by part; embeddings are read for a seeded sample of rows; pictures for
the few that are shown. The books are checked once more on the way: every embedded sample is kept or dropped.
"""

import platform
import shlex
from importlib import metadata

import numpy as np

from d2prune import store
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.report import formatting, metrics
from d2prune.report.coverage import ask, curves, fraction_rows, measures
from d2prune.report.data import FlowStep, Loss, Metric, ReportData, ReportParams, RunRecord
from d2prune.report.galleries import show
from d2prune.report.pool_sample import read_sample
from d2prune.report.summary import rejects
from d2prune.report.tally import COLUMNS, CUT_OFF, Tally, bin_edges
from d2prune.store import artifacts
from d2prune.version import __version__


def collect(record: RunRecord, params: ReportParams) -> ReportData:
    """Read what the page shows.

    Raises:
        BooksError: the artifacts do not belong together.
        InfrastructureError: an artifact cannot be read.
    """
    pool = Parts(record.work_dir, {"embed": record.embed.units, "select": record.select.units})
    pool.check_aligned(files.DECISIONS)
    sample = read_sample(pool, record, params)
    tally = Tally(
        bin_edges(sample.difficulty_N),
        bin_edges(sample.selection_N),
        max(params.gallery, 1),
        record.score_offset,
    )
    for start, table in pool.read_all(files.DECISIONS, COLUMNS):
        tally.add(start, table)
    counters = record.embed.counters
    dropped = tally.samples - tally.kept
    artifacts.balance("report", counters.get("embedded", len(pool)), {"kept": tally.kept, "dropped": dropped})

    label_N, centres = metrics.k_means(
        sample.points_ND, metrics.cluster_count(len(sample), params.clusters), params.seed
    )
    galleries, clusters = show(pool, record, sample, tally, (label_N, centres), params)
    points, variance = metrics.pca_map(sample.points_ND)
    drawn = np.sort(np.random.default_rng(params.seed).permutation(len(sample))[: params.map_points])
    fraction = tally.kept / tally.samples if tally.samples else 0.0
    pool_mean, kept_mean = tally.mean_difficulty()
    asked = ask(sample, params.queries, params.seed)
    ranked = curves(sample, record.score_name, asked, params.seed)
    rows = measures(sample, asked, params.seed)
    return ReportData(
        title=f"d2prune kept {tally.kept:,} of {tally.samples:,} samples",
        lead=_lead(record, tally, pool_mean, kept_mean),
        headline=_headline(record, tally, pool_mean, kept_mean),
        flow=_flow(record, tally),
        losses=_losses(record, tally),
        score_label=record.score_name,
        difficulty=tally.histogram("difficulty"),
        selection=tally.histogram("selection_score"),
        threshold=tally.threshold if np.isfinite(tally.threshold) and dropped else None,
        map_points=points[drawn],
        map_kept=sample.kept_N[drawn],
        map_variance=variance,
        clusters=clusters,
        galleries=galleries,
        metrics=(
            Metric(
                f"Mean {record.score_name}",
                "the score the filter starts from, over all samples",
                formatting.number(pool_mean),
                formatting.number(kept_mean),
            ),
            *rows,
        ),
        curves=ranked,
        fraction_rows=fraction_rows(ranked, tally.samples, fraction),
        fraction=fraction,
        embedded=tally.samples,
        sampled=len(sample),
        graph=_graph(record),
        timings=_timings(record, tally),
        parameters=_parameters(record),
        versions=_versions(),
        output=_output(record),
        train_command=record.written.train_command if record.written else "",
        reshard_command=record.written.reshard_command if record.written else "",
        has_pictures=record.has_pictures,
    )


def _lead(record: RunRecord, tally: Tally, pool_mean: float, kept_mean: float) -> str:
    read = record.embed.counters.get("read", tally.samples)
    share = formatting.percent(tally.kept / tally.samples if tally.samples else None)
    return (
        f"Of {read:,} samples read, {tally.samples:,} could be embedded and {tally.kept:,} of these ({share}) "
        f"were kept. The kept ones have a mean {record.score_name} of {formatting.number(kept_mean)}, "
        f"the whole pool {formatting.number(pool_mean)}."
    )


def _headline(
    record: RunRecord, tally: Tally, pool_mean: float, kept_mean: float
) -> tuple[tuple[str, str, str], ...]:
    counters = record.embed.counters
    facts = record.graph.facts
    share = formatting.percent(tally.kept / (tally.samples or 1))
    cards = [
        (
            "Samples read",
            f"{counters.get('read', tally.samples):,}",
            f"{counters.get('rejected', 0):,} rejected",
        ),
        (
            "Kept",
            f"{tally.kept:,}",
            f"{share} of {tally.samples:,} embedded",
        ),
        (
            f"Mean {record.score_name}",
            formatting.number(kept_mean),
            f"kept; whole pool {formatting.number(pool_mean)}",
        ),
        (
            "Graph recall",
            formatting.number(facts.get("recall")),
            f"{formatting.number(facts.get('recall_low'))} to {formatting.number(facts.get('recall_high'))}, 95\u00a0% interval",
        ),
    ]
    if record.written and record.has_pictures:
        cards.append(("Shards written", f"{record.written.shards:,}", f"{record.written.samples:,} samples"))
    elif record.written:
        cards.append(("Subset written", f"{record.written.samples:,}", "samples; no tars yet"))
    return tuple(cards)


def _flow(record: RunRecord, tally: Tally) -> tuple[FlowStep, ...]:
    counters = record.embed.counters
    rejected = counters.get("rejected", 0)
    cut = tally.reasons.get(CUT_OFF, 0)
    steps = [
        FlowStep("Read", counters.get("read", tally.samples + rejected)),
        FlowStep("Embedded", tally.samples, rejected, "rejected"),
    ]
    if filtered := counters.get("filtered", 0):
        steps.insert(1, FlowStep("Past the filters", steps[0].count - filtered, filtered, "filtered"))
    if cut:
        steps.append(FlowStep("Past the cut-off", tally.samples - cut, cut, "cut off"))
    steps.append(FlowStep("Kept", tally.kept, tally.samples - cut - tally.kept, "below the budget"))
    if record.written:
        written = record.written.samples
        steps.append(FlowStep("Written", written, max(tally.kept - written, 0), "not written"))
    return tuple(steps)


def _losses(record: RunRecord, tally: Tally) -> tuple[Loss, ...]:
    found = [
        Loss("embed", reason, count, formatting.MEANINGS.get(reason, ""))
        for reason, count in rejects(record).items()
    ]
    found += [
        Loss("select", reason, count, formatting.MEANINGS.get(reason, ""))
        for reason, count in sorted(tally.reasons.items())
        if reason != "kept"
    ]
    return tuple(found)


def _graph(record: RunRecord) -> tuple[tuple[str, str], ...]:
    # Counted over units, not measured once: a graph made of parts has no single place for it.
    facts = {**record.graph.counters, **record.graph.facts}
    names = (
        ("n_neighbors", "Neighbours per sample (k)"),
        ("edges", "Edges"),
        ("nlist", "Lists of the index (nlist)"),
        ("nprobe", "Lists searched per sample (nprobe)"),
    )
    rows = [(f"Recall@{facts.get('n_neighbors', 'k')}", formatting.recall(facts))]
    rows += [(label, f"{facts[name]:,}") for name, label in names if isinstance(facts.get(name), int)]
    return tuple(rows)


def _timings(record: RunRecord, tally: Tally) -> tuple[tuple[str, str, str], ...]:
    work = {
        "embed": record.embed.counters.get("read", tally.samples),
        "graph": tally.samples,
        "rank": tally.samples,
        "select": tally.samples,
        "write": tally.kept,
    }
    return tuple(
        (
            stage,
            formatting.duration(seconds),
            f"{work[stage] / seconds:,.0f} samples/s" if stage in work and seconds > 0 else formatting.DASH,
        )
        for stage, seconds in record.timings.items()
    )


def _parameters(record: RunRecord) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    given = record.parameters
    if given is None:
        given = {manifest.stage: manifest.params for manifest in (record.embed, record.graph, record.select)}
    return tuple(
        (stage, tuple((name, formatting.parameter(value)) for name, value in sorted(values.items())))
        for stage, values in given.items()
    )


def _versions() -> tuple[tuple[str, str], ...]:
    found = [("d2prune", __version__), ("python", platform.python_version())]
    for name in ("numpy", "pyarrow", "numba", "torch", "open_clip_torch", "ray", "pillow"):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _output(record: RunRecord) -> tuple[tuple[str, str], ...]:
    rows = [("Artifacts", store.redact(record.work_dir))]
    if record.written:
        rows.insert(0, ("Shards" if record.has_pictures else "Subset", store.redact(record.written.url)))
    place = shlex.quote(store.redact(record.work_dir))
    rows += [
        ("Why was one dropped?", f"d2prune explain {place} UID"),
        ("Look at all of them", f"d2prune explore {place}"),
        ("Try other settings", "d2prune sweep --config run.yaml --fractions 0.1,0.3,0.5"),
    ]
    rows += [(f"{m.stage} artifact", m.fingerprint) for m in (record.embed, record.graph, record.select)]
    return tuple(rows)
