"""`ReportData` -> one HTML page that needs nothing else: styles, charts and pictures are inside, no script at all.

Everything is escaped by jinja2; a Content-Security-Policy in the page forbids requests and scripts
besides, in case something hostile in a caption ever found a way through.
"""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from d2prune.report import formatting, plots
from d2prune.report.data import ReportData

_FOLDER = Path(__file__).parent


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: formatting.percent(value, 0)
    environment.globals["share_bar"] = plots.share_bar
    return environment.get_template("page.html")


def render(data: ReportData) -> str:
    """The page as HTML. Equal data give equal text."""
    styles = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return _template().render(data=data, styles=styles, charts=_charts(data))


def _charts(data: ReportData) -> dict[str, Markup]:
    charts = {
        "flow": plots.flow(data.flow),
        "difficulty": plots.histogram(
            data.difficulty, f"{data.score_label}, kept and dropped", f"{data.score_label} (score, no unit)"
        ),
        "selection": plots.histogram(
            data.selection, "Selection score, kept and dropped", "selection score (no unit)", data.threshold
        ),
    }
    if len(data.map_points) > 2:
        first, second = data.map_variance
        labels = (f"component 1 ({first:.0%} of variance)", f"component 2 ({second:.0%})")
        for side, shown in (("kept", data.map_kept), ("dropped", ~data.map_kept)):
            charts[f"map_{side}"] = plots.scatter(data.map_points, shown, side, labels)
    if data.curves:
        charts["score_curve"] = plots.lines(
            [(curve.label, curve.fraction, curve.mean_score) for curve in data.curves],
            f"Mean {data.score_label} of the kept against the fraction kept",
            "fraction kept (%)",
            f"mean {data.score_label} of the kept (no unit)",
            data.fraction,
        )
        charts["coverage_curve"] = plots.lines(
            [(curve.label, curve.fraction, curve.coverage) for curve in data.curves],
            "Coverage gap against the fraction kept",
            "fraction kept (%)",
            "coverage gap (distance, 0 to 2)",
            data.fraction,
        )
    return charts
