"""Renders `ReportData` as one self-contained HTML page: styles, charts and images are inline, no scripts.

jinja2 escapes everything. A Content-Security-Policy in the page also forbids scripts and requests, in
case a hostile caption ever gets past the escaping.
"""

import re
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup, escape

from d2prune.redaction import redact_markup, redact_text, secrets_read_once
from d2prune.report import formatting, plots, tradeoff
from d2prune.report.page_data import ReportData
from d2prune.report.trend_plot import draw_trend

_FOLDER = Path(__file__).parent
# Fractions in percent with a label in the trade-off figure.
_LABELLED = (10, 20, 30, 50, 70, 100)


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
    environment.filters["percent_or_dash"] = formatting.percent
    environment.filters["number"] = formatting.number
    environment.filters["breakable"] = _breakable
    environment.globals["share_bar"] = plots.share_bar
    return environment.get_template("page.html")


def _breakable(text: str) -> Markup:
    """Text that a browser breaks after punctuation rather than anywhere in a word.

    Markup passes the template's redaction, so credentials are removed here.
    """
    return Markup(re.sub(r"([_/,=.]+)(?=\w)", r"\1<wbr>", str(escape(redact_text(str(text))))))


def render(data: ReportData) -> str:
    """The page as HTML; equal data give equal text."""
    styles = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    with secrets_read_once():
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
        for outcome, shown in (("kept", data.map_kept), ("dropped", ~data.map_kept)):
            charts[f"map_{outcome}"] = plots.scatter(data.map_points, shown, outcome)
    if data.suppressed:
        charts["cosines"] = plots.cosine_histogram(data.suppressed)
    for name, chart in draw_trend(data.trend, data.score_label).items():
        charts[f"trend_{name}"] = chart
    if data.curves:
        charts["coverage_tradeoff"] = _draw_tradeoff(data, "coverage", "coverage gap (distance, 0 to 2)")
        if np.isfinite(data.curves[0].copies).all():
            charts["copies_tradeoff"] = _draw_tradeoff(data, "copies", "near-copies among the kept samples")
    return charts


def _draw_tradeoff(data: ReportData, cost: str, label: str) -> Markup:
    """Draw the curves and the run itself; `cost` is a field of `Curve` and of `Here`."""
    lines = [
        tradeoff.Line(
            getattr(curve, cost).tolist(),
            curve.mean_score.tolist(),
            [_name_point(float(fraction)) if not number else "" for fraction in curve.fraction],
        )
        for number, curve in enumerate(data.curves)
    ]
    here = (getattr(data.here, cost), data.here.mean_score) if data.here else None
    names = ", ".join(curve.label for curve in data.curves)
    description = f"One line each for {names}; the table below holds the values of this run's ranking"
    return tradeoff.draw(
        lines, label, f"mean {data.score_label} of the kept samples", description, here, cost == "copies"
    )


def _name_point(fraction: float) -> str:
    """The label of a fraction; empty if it has none."""
    return formatting.percent(fraction, 0) if round(100 * fraction) in _LABELLED else ""
