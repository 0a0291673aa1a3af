"""The summary table that a run prints in the terminal: (label, value) rows."""

from d2prune import store
from d2prune.report import formatting
from d2prune.report.record import RunRecord
from d2prune.report.rejected import count_by_reason
from d2prune.store.artifacts import Manifest


def _count_duplicates(select: Manifest) -> list[tuple[str, str]]:
    """Rows of the duplicates dropped; none if the run looks for none."""
    names = {"duplicates": "exact copies", "near_duplicates": "near-duplicates"}
    return [
        (f"  {label}", f"{select.counters[name]:,} dropped")
        for name, label in names.items()
        if name in select.counters
    ]


def summary_rows(record: RunRecord, report_url: str | None) -> list[tuple[str, str]]:
    """What a run did, in (label, value) rows.

    Args:
        record: the run.
        report_url: URL of the page; None if there is none.

    Returns:
        Samples read, rejected (one row per reason), embedded and kept; shards written; graph recall;
        time of the stages that ran; URLs of the report and the output; the train command. Values are
        plain text, not escaped.
    """
    counters = record.embed.counters
    embedded, kept = counters.get("embedded", 0), record.select.counters["kept"]
    rows = [
        ("samples read", f"{counters.get('read', 0):,}"),
        ("rejected", f"{counters.get('rejected', 0):,}"),
    ]
    rows += [
        (f"  {reason}", f"{count:,}") for reason, count in count_by_reason(counters, ["rejected"]).items()
    ]
    if "filtered" in counters:
        rows.append(("filtered", f"{counters['filtered']:,}"))
        rows += [
            (f"  {reason}", f"{count:,}") for reason, count in count_by_reason(counters, ["filtered"]).items()
        ]
    rows.append(("embedded", f"{embedded:,}"))
    if cut := counters.get("caption-cut", 0):
        rows.append(("  with a long caption", f"{cut:,} (models read its beginning)"))
    rows += [
        *_count_duplicates(record.select),
        ("kept", f"{kept:,} ({formatting.percent(kept / embedded if embedded else None)} of embedded)"),
    ]
    if record.written and record.has_images:
        rows.append(("shards written", f"{record.written.shards:,}"))
    rows.append(("graph recall", formatting.recall(record.graph.facts)))
    if record.timings:
        rows.append(
            ("time", ", ".join(f"{stage} {formatting.duration(s)}" for stage, s in record.timings.items()))
        )
    if report_url:
        rows.append(("report", store.redact(report_url)))
        rows.append(("explore with", f"d2prune explore {store.redact(record.work_dir)}"))
    if record.written:
        rows.append(("shards" if record.has_images else "subset", store.redact(record.written.url)))
        if record.written.train_command:
            rows.append(("train with", record.written.train_command))
        if record.written.reshard_command:
            rows.append(("reshard with", record.written.reshard_command))
    return rows
