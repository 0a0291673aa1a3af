"""The table at the end of a run: label and value, for a terminal."""

from d2prune import store
from d2prune.parts import files
from d2prune.parts.reader import Parts
from d2prune.report import formatting
from d2prune.report.data import RunRecord


def rejects(record: RunRecord) -> dict[str, int]:
    """Rejected samples by reason, most frequent first."""
    prefix = "rejected."
    found = {
        name[len(prefix) :]: n for name, n in record.embed.counters.items() if name.startswith(prefix) and n
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def count_kept(record: RunRecord) -> int:
    """Samples the select artifact keeps: its counter, else counted."""
    if "kept" in record.select.counters:
        return record.select.counters["kept"]
    pool = Parts(record.work_dir, {"embed": record.embed.units, "select": record.select.units})
    return sum(table["kept"].to_pylist().count(True) for _, table in pool.read_all(files.DECISIONS, ["kept"]))


def summary_rows(record: RunRecord, report_url: str | None) -> list[tuple[str, str]]:
    """What a run did, in (label, value) rows.

    Args:
        record: the run.
        report_url: where the page lies; None where there is none.

    Returns:
        Samples read, rejected (a row for each reason), embedded and kept; shards written; recall of
        the graph; time of the stages that ran; where the report and the shards are; the train
        command. Values are plain text, not escaped for anything.
    """
    counters = record.embed.counters
    embedded, kept = counters.get("embedded", 0), count_kept(record)
    rows = [
        ("samples read", f"{counters.get('read', 0):,}"),
        ("rejected", f"{counters.get('rejected', 0):,}"),
    ]
    rows += [(f"  {reason}", f"{count:,}") for reason, count in rejects(record).items()]
    if "filtered" in counters:
        rows.append(("filtered", f"{counters['filtered']:,}"))
    rows += [
        ("embedded", f"{embedded:,}"),
        ("kept", f"{kept:,} ({formatting.percent(kept / embedded if embedded else None)} of embedded)"),
    ]
    if record.written and record.has_pictures:
        rows.append(("shards written", f"{record.written.shards:,}"))
    rows.append(("graph recall", formatting.recall(record.graph.facts)))
    if record.timings:
        rows.append(
            ("time", ", ".join(f"{stage} {formatting.duration(s)}" for stage, s in record.timings.items()))
        )
    if report_url:
        rows.append(("report", store.redact(report_url)))
        rows.append(("look inside", f"d2prune explore {store.redact(record.work_dir)}"))
    if record.written:
        rows.append(("shards" if record.has_pictures else "subset", store.redact(record.written.url)))
        if record.written.train_command:
            rows.append(("train with", record.written.train_command))
        if record.written.reshard_command:
            rows.append(("make shards with", record.written.reshard_command))
    return [(label, value.replace("\u00a0", " ")) for label, value in rows]
