"""Renders `ReportData` as one self-contained HTML page: styles, charts and images are inline, no scripts.

jinja2 escapes everything. A Content-Security-Policy in the page also forbids scripts and requests, in
case a hostile caption ever gets past the escaping.
"""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from d2prune.redaction import redact_markup
from d2prune.report import formatting, plots
from d2prune.report.page_data import ReportData

_FOLDER = Path(__file__).parent


@cache
def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=redact_markup,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: formatting.percent(value, 0)
    environment.globals["share_bar"] = plots.share_bar
    return environment.get_template("page.html")


def render(data: ReportData) -> str:
    """The page as HTML; equal data give equal text."""
    styles = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return _load_template().render(data=data, styles=styles, charts=_draw_charts(data))


def _draw_charts(data: ReportData) -> dict[str, Markup]:
    charts = {
        "flow": plots.flow(data.flow),
        "difficulty": plots.histogram(
            data.difficulty, f"{data.score_label}, kept and dropped", f"{data.score_label} (no unit)"
        ),
        "selection": plots.histogram(
            data.selection, "Selection score, kept and dropped", "selection score (no unit)", data.threshold
        ),
    }
    if len(data.map_points) > 2:
        first, second = data.map_variance
        labels = (f"component 1 ({first:.0%} of variance)", f"component 2 ({second:.0%})")
        for outcome, shown in (("kept", data.map_kept), ("dropped", ~data.map_kept)):
            charts[f"map_{outcome}"] = plots.scatter(data.map_points, shown, outcome, labels)
    if data.curves:
        charts["score_curve"] = plots.lines(
            [(curve.label, curve.fraction, curve.mean_score) for curve in data.curves],
            f"Mean {data.score_label} of the kept samples against the fraction kept",
            "fraction kept",
            f"mean {data.score_label} of the kept samples",
            data.fraction,
        )
        charts["coverage_curve"] = plots.lines(
            [(curve.label, curve.fraction, curve.coverage) for curve in data.curves],
            "Coverage gap against the fraction kept",
            "fraction kept",
            "coverage gap (distance, 0 to 2)",
            data.fraction,
        )
    return charts
