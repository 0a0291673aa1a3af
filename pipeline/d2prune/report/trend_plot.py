"""The curve over runs: one small chart per measure, with the runs of a chain from left to right.

Every point is also in the table below the charts.
"""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from d2prune.report import plots
from d2prune.report.trend import Point

_HEIGHT = 210
# Beyond this number, dots would touch each other.
_MOST_DOTS = 60
_MOST = {"copies": 100.0, "recall": 1.0}
"""The highest value of a measure, where it has one."""


def draw_trend(points: Sequence[Point], score_name: str) -> Mapping[str, Markup]:
    """The charts by measure, those without a value left out; empty for less than two runs."""
    if len(points) < 2:
        return {}
    measures: tuple[tuple[str, str, list[list[float | None]]], ...] = (
        (
            "samples",
            "samples: pool (dashed) and kept",
            [[point.kept for point in points], [point.samples for point in points]],
        ),
        ("score", f"mean {score_name} of the kept", [[point.mean(score_name) for point in points]]),
        (
            "copies",
            "kept samples with a kept near-copy, in %",
            [[None if point.copies is None else 100 * point.copies for point in points]],
        ),
        ("recall", "graph recall", [[point.recall for point in points]]),
    )
    return {
        name: _draw(label, lines, _MOST.get(name, math.inf))
        for name, label, lines in measures
        if any(value is not None for line in lines for value in line)
    }


def _draw(label: str, lines: list[list[float | None]], most: float) -> Markup:
    known = [value for line in lines for value in line if value is not None]
    low, high = min(known), max(known)
    # A flat curve of zeros gets a scale of ones.
    pad = max((high - low) * 0.12, abs(high) * 5e-3) or 1.0
    count = len(lines[0])
    axes = plots.Axes(
        (1, count), (max(low - pad, 0.0) if low >= 0 else low - pad, min(high + pad, most)), _HEIGHT
    )
    body = axes.frame("run, the latest on the right", label, _whole)
    for number, line in reversed(list(enumerate(lines))):
        path, is_open = "", False
        for run, value in enumerate(line, 1):
            if value is not None:
                path += f"{'L' if is_open else 'M'}{axes.at_x(run):.1f} {axes.at_y(value):.1f}"
                if count <= _MOST_DOTS or run == count:
                    body += (
                        f'<circle class="dot" cx="{axes.at_x(run):.1f}" cy="{axes.at_y(value):.1f}" r="3"/>'
                    )
            is_open = value is not None
        body += f'<path class="line line-{number}" d="{path}"/>' if path else ""
    latest = ", ".join("not known" if line[-1] is None else plots.short(line[-1]) for line in lines)
    return plots.svg(f"Over {count} runs: {label}", f"Latest: {latest}", _HEIGHT, body)


def _whole(value: float) -> str:
    """A run's number; nothing between two runs."""
    return f"{value:.0f}" if value == int(value) else ""
