"""The report stage: one self-contained HTML page that shows what a run kept, what it dropped and why."""

from pipeline.report.data import ReportParams, RunRecord, Shard, Written
from pipeline.report.metrics import FlagShare, flag_share
from pipeline.report.stage import flagged_dropped, page_url, write_report
from pipeline.report.summary import summary_rows

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
