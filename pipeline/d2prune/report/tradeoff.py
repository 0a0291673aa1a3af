"""The trade-off figure of the report and of a sweep: mean score of the kept samples against a cost.

One line per ranking; its points are fractions or settings. A ring marks what the run itself keeps, or
what is recommended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from d2prune.report import plots

LINE_STYLES = 6
"""Classes `line-0` to `line-5` of the style sheet; further lines use them again."""
_HEIGHT = 330
# In units of the chart: labels of points in one cell would overlap.
_LABEL_CELL = 12
# Size of a label's text, in the same units.
_CHARACTER, _LINE = 7.4, 14.0


@dataclass(frozen=True)
class Line:
    """The points of one ranking.

    Attributes:
        cost: of each point, finite.
        score: of each point, finite.
        names: label of each point; empty: none.
    """

    cost: Sequence[float]
    score: Sequence[float]
    names: Sequence[str]


def draw(
    lines: Sequence[Line],
    cost_label: str,
    score_label: str,
    description: str,
    here: tuple[float, float] | None = None,
    is_share: bool = False,
    recommended: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Draw the mean score against a cost.

    Args:
        lines: line i is drawn in class `line-i`; at least one point in all.
        cost_label: of the x axis, with its unit.
        score_label: of the y axis.
        description: what the figure shows, for assistive technology.
        here: cost and score of the run itself, marked by a ring.
        is_share: whether the cost is a share, shown as a percentage.
        recommended: cost and score of points that get a ring too; they are points of the lines.
    """
    marked = [here] if here else []
    x = np.array([*(cost for line in lines for cost in line.cost), *(cost for cost, _ in marked)])
    y = np.array([*(score for line in lines for score in line.score), *(score for _, score in marked)])
    pads = [max(float(np.ptp(values)) * 0.1, 1e-4) for values in (x, y)]
    x_range, y_range = ((v.min() - pad, v.max() + pad) for v, pad in zip((x, y), pads, strict=True))
    axes = plots.Axes((max(x_range[0], 0.0), x_range[1]), y_range, _HEIGHT)
    format_x = (lambda value: f"{100 * value:.3g}%") if is_share else plots.short
    body = axes.frame(cost_label, score_label, format_x)
    # Points that are too close for separate labels share one: at the first point, with all names.
    names: dict[tuple[int, int], tuple[float, float, list[str]]] = {}

    def label(px: float, py: float, name: str) -> None:
        names.setdefault((round(px / _LABEL_CELL), round(py / _LABEL_CELL)), (px, py, []))[2].append(name)

    if here:
        px, py = axes.at_x(here[0]), axes.at_y(here[1])
        body += f'<circle class="here" cx="{px:.1f}" cy="{py:.1f}" r="7"/>'
        label(px, py, "you are here")
    for cost, score in recommended:
        px, py = axes.at_x(cost), axes.at_y(score)
        body += f'<circle class="here" cx="{px:.1f}" cy="{py:.1f}" r="7"/>'
    for index, line in reversed(list(enumerate(lines))):
        points = [(axes.at_x(a), axes.at_y(b)) for a, b in zip(line.cost, line.score, strict=True)]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        body += f'<path class="line line-{index % LINE_STYLES}" d="M{path}"/>'
        for (px, py), name in zip(points, line.names, strict=True):
            if name:
                body += f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="3"/>'
                label(px, py, name)
    body += _place_labels([(px, py, ", ".join(found)) for px, py, found in names.values()])
    return plots.svg(f"{score_label} against {cost_label}", description, _HEIGHT, body)


def _place_labels(labels: Sequence[tuple[float, float, str]]) -> str:
    """Put each label beside its point where it covers no earlier one, or as little as possible."""
    placed: list[tuple[float, float, float, float]] = []
    body = ""
    for px, py, text in labels:
        width = _CHARACTER * len(text)
        boxes = [
            (px + dx if dx > 0 else px + dx - width, py + dy, width, _LINE)
            for dy in (-_LINE - 3, 5, -2 * _LINE, _LINE, -_LINE / 2)
            for dx in (9, -9)
        ]
        inside = [box for box in boxes if box[0] >= 0 and box[0] + width <= plots.WIDTH] or boxes
        best = min(inside, key=lambda box: sum(_overlap(box, other) for other in placed))
        placed.append(best)
        body += f'<text class="strong" x="{best[0]:.1f}" y="{best[1] + _LINE - 3:.1f}">{escape(text)}</text>'
    return body


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area that two boxes (left, top, width, height) share."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
