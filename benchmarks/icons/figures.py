"""Figures of the results page, as SVG: dots with bars of one deviation."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

_WIDTH, _LEFT, _PANEL, _ROW = 860, 300, 250, 24

Point = tuple[float, float]
"""Mean and deviation."""


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
    head_tag = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
    )
    return "\n".join([f'{head_tag} font-size="12">', *body, "</svg>"]) + "\n"
