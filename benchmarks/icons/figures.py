"""Figures of the results page, as SVG: dots with bars of one deviation, and lines of differences."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH, _LEFT, _PANEL, _ROW = 860, 330, 235, 24
_PLOT_TOP, _PLOT_BOTTOM, _PLOT_WIDTH = 30, 250, 350

Point = tuple[float, float]
"""Mean and deviation."""
Series = Mapping[float, Sequence[float]]
"""x -> one value per seed."""
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")


def dots(rows: Sequence[tuple[str, Sequence[Point]]], heads: Sequence[str]) -> str:
    """Return one line per row and one panel per figure.

    Args:
        rows: name, and mean and deviation of each figure.
        heads: names of the figures.
    """
    height = 60 + _ROW * max(1, len(rows))
    body = [f'<rect width="{_WIDTH}" height="{height}" fill="white"/>']
    body += [
        f'<text x="{_LEFT - 12}" y="{44 + _ROW * i}" text-anchor="end">{html.escape(name)}</text>'
        for i, (name, _) in enumerate(rows)
    ]
    for panel, head in enumerate(heads):
        points = [values[panel] for _, values in rows]
        low = float(np.floor(min((m - d for m, d in points), default=0.0)))
        high = float(np.ceil(max((m + d for m, d in points), default=1.0)))
        left, scale = _LEFT + panel * (_PANEL + 30), _PANEL / max(high - low, 1.0)
        body.append(f'<text x="{left + _PANEL / 2}" y="18" text-anchor="middle">{html.escape(head)}</text>')
        for tick in np.linspace(low, high, 6):
            x = left + scale * (tick - low)
            body.append(f'<path d="M{x:.1f} 26V{height - 26}" stroke="#ddd"/>')
            body.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:.3g}</text>')
        for i, (middle, deviation) in enumerate(points):
            x, y, reach = left + scale * (middle - low), 40 + _ROW * i, scale * deviation
            body.append(f'<path d="M{x - reach:.1f} {y}h{2 * reach:.1f}" stroke="#1f77b4"/>')
            body.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#1f77b4"/>')
    return _svg(height, body)


def lines(rows: Sequence[tuple[str, Sequence[Series]]], heads: Sequence[str], unit: str) -> str:
    """Return one panel per figure: a line through the means of each row, and a dot per seed.

    Args:
        rows: name, and the series of each figure; x is positive and on a logarithmic scale.
        heads: names of the figures.
        unit: what x counts.
    """
    height = _PLOT_BOTTOM + 70 + 20 * len(rows)
    body = [f'<rect width="{_WIDTH}" height="{height}" fill="white"/>']
    for row, (name, _) in enumerate(rows):
        y = _PLOT_BOTTOM + 70 + 20 * row
        body.append(f'<path d="M60 {y - 4}h24" stroke="{_COLOURS[row]}" stroke-width="2"/>')
        body.append(f'<text x="92" y="{y}">{html.escape(name)}</text>')
    for panel, head in enumerate(heads):
        left = 60 + panel * _WIDTH // len(heads)
        body += _panel([series[panel] for _, series in rows], left, head, unit)
    return _svg(height, body)


def _panel(rows: Sequence[Series], left: int, head: str, unit: str) -> list[str]:
    xs = sorted({x for series in rows for x in series}) or [1.0]
    ys = [y for series in rows for seeds in series.values() for y in seeds]
    low, high = float(np.floor(min([0.0, *ys]))), float(np.ceil(max([1.0, *ys])))
    across = (_PLOT_WIDTH - 40) / max(float(np.log(xs[-1] / xs[0])), 1.0)

    def at_x(x: float) -> float:
        return left + 20 + across * float(np.log(x / xs[0]))

    def at_y(y: float) -> float:
        return _PLOT_TOP + (_PLOT_BOTTOM - _PLOT_TOP) * (high - y) / (high - low)

    middle = f'x="{left + _PLOT_WIDTH / 2:.0f}" text-anchor="middle"'
    body = [f'<text {middle} y="18">{html.escape(head)}</text>']
    step = int(np.ceil((high - low) / 8))
    for tick in range(-(int(-low) // step * step), int(high) + 1, step):
        y, colour = at_y(tick), "#777" if tick == 0 else "#ddd"
        body.append(f'<path d="M{left} {y:.1f}h{_PLOT_WIDTH}" stroke="{colour}"/>')
        body.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:+d}</text>')
    body += [
        f'<text x="{at_x(x):.1f}" y="{_PLOT_BOTTOM + 18}" text-anchor="middle">{x:,.0f}</text>' for x in xs
    ]
    body.append(f'<text {middle} y="{_PLOT_BOTTOM + 36}">{html.escape(unit)}</text>')
    for colour, series in zip(_COLOURS, rows, strict=False):
        means = "L".join(f"{at_x(x):.1f} {at_y(float(np.mean(series[x]))):.1f}" for x in sorted(series))
        if means:
            body.append(f'<path d="M{means}" stroke="{colour}" stroke-width="2" fill="none"/>')
        body += [
            f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>'
            for x, seeds in series.items()
            for y in seeds
        ]
    return body


def _svg(height: int, body: Sequence[str]) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, *body, "</svg>"]) + "\n"
