"""The report stage: reads a run's artifacts and pictures, writes `work_dir/report/<fingerprint>/report.html`.

The fingerprint covers the artifacts and the parameters, not the timings: another run of the same
work replaces the page by one that tells of its own times.
"""

import logging
from collections.abc import Collection

import numpy as np

from d2prune import store
from d2prune.parts.files import DECISIONS
from d2prune.report.collect import collect
from d2prune.report.data import ReportParams, RunRecord
from d2prune.report.metrics import FlagShare, flag_share
from d2prune.report.page import render
from d2prune.store import artifacts
from d2prune.store.artifacts import Manifest

log = logging.getLogger(__name__)

MAX_BYTES = 5_000_000


def write_report(record: RunRecord, params: ReportParams | None = None) -> str:
    """Make the page of a run.

    Args:
        record: the run.
        params: how many pictures, how large a sample, which seed.

    Returns:
        The page's URL.

    Raises:
        BooksError: the artifacts do not belong together.
        InfrastructureError: an artifact cannot be read, or the page cannot be written.
    """
    params = params or ReportParams()
    page = render(collect(record, params)).encode("utf-8")
    if len(page) > MAX_BYTES:
        log.warning(
            "report: %d bytes, more than the %d it should have; lower report.gallery", len(page), MAX_BYTES
        )
    url = page_url(record, params)
    store.write_bytes(url, page)
    return url


def page_url(record: RunRecord, params: ReportParams | None = None) -> str:
    """Where the page of a run lies, or will lie."""
    written = (store.redact(record.written.url), record.written.shards) if record.written else None
    identity = artifacts.fingerprint(
        record.embed.fingerprint,
        record.graph.fingerprint,
        record.select.fingerprint,
        written,
        params or ReportParams(),
    )
    return store.join(record.work_dir, "report", identity, "report.html")


def flagged_dropped(work_dir: str, select: Manifest, flagged: Collection[str]) -> FlagShare:
    """What share of the flagged uids was dropped, over all decisions; reads one part at a time.

    Args:
        work_dir: where the artifacts lie.
        select: manifest of the select artifact.
        flagged: uids of interest, for instance planted mismatches.
    """
    names = frozenset(flagged)
    total = FlagShare(0, 0, 0, 0)
    for unit in select.units:
        table = artifacts.read_table(store.join(work_dir, select.stage), unit, DECISIONS, ("uid", "kept"))
        part = flag_share(table["uid"].to_pylist(), np.array(table["kept"].to_pylist(), dtype=bool), names)
        total = FlagShare(
            total.flagged + part.flagged,
            total.flagged_dropped + part.flagged_dropped,
            total.samples + part.samples,
            total.dropped + part.dropped,
        )
    return total
