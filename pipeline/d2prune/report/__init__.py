"""The report stage: one self-contained HTML page that shows what a run kept, what it dropped and why."""

from d2prune.report.data import ReportParams, RunRecord, Shard, Written
from d2prune.report.metrics import FlagShare, flag_share
from d2prune.report.summary import summary_rows
from d2prune.report.write import flagged_dropped, page_url, write_report

__all__ = [
    "FlagShare",
    "ReportParams",
    "RunRecord",
    "Shard",
    "Written",
    "flag_share",
    "flagged_dropped",
    "page_url",
    "summary_rows",
    "write_report",
]
