"""The line plot of the coreset benchmark: values against the share pruned, with bars."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np

_COLOURS = (
    "#333333",
    "#999999",
    "#d62728",
    "#ff7f0e",
    "#1f77b4",
    "#2ca02c",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#17becf",
)
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 860, 440, 60, 20, 330, 50

Points = Mapping[str, Mapping[float, tuple[float, float, int]]]


def svg(
    points: Points, label: str = "test accuracy, %", step: float = 5.0, level: float | None = None,
    level_name: str = "all samples",
) -> str:  # fmt: skip
    """Return the plot: a line per method against the share pruned, with its bars.

    Args:
        points: method -> share pruned -> (value, half the length of the bar, number of seeds); a value
            at 0 pruned is drawn as the level.
        label: of the vertical axis.
        step: between its marks.
        level: a value to draw as a dashed line; None: that at 0 pruned.
        level_name: name of that line.
    """
    lines = {method: values for method, values in points.items() if values.keys() - {0.0}}
    if level is None:
        level = next((values[0.0][0] for values in points.values() if 0.0 in values), None)
    bars = [bar for values in lines.values() for bar in values.values()]
    means = [mean + side * half for mean, half, _ in bars for side in (-1, 1)]
    if not means:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    means += [] if level is None else [level]
    low, high = np.floor(min(means) / step) * step, np.ceil(max(means) / step) * step + step / 5

    first = min(rate for values in lines.values() for rate in values) - 0.05

    def x(rate: float, shift: float = 0.0) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (rate - first) / (1 - first) + shift

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)

    body = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for value in np.arange(low, high, step):
        body.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        body.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
    body += [
        f'<text x="{x(rate):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{rate:.0%}</text>'
        for rate in sorted({rate for values in lines.values() for rate in values})
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    body.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">pruned</text>')
    turned = f'transform="translate(16 {_HEIGHT / 2}) rotate(-90)"'
    body.append(f'<text {turned} text-anchor="middle">{html.escape(label)}</text>')
    if level is not None:
        body.append(
            f'<path d="M{_LEFT} {y(level):.1f}H{_WIDTH - _RIGHT}" stroke="black" stroke-dasharray="4 4"/>'
        )
        body.append(
            f'<path d="M{_WIDTH - _RIGHT + 20} {_TOP + 7}h24" stroke="black" stroke-dasharray="4 4"/>'
        )
        body.append(f'<text x="{_WIDTH - _RIGHT + 50}" y="{_TOP + 11}">{html.escape(level_name)}</text>')
    for i, (method, values) in enumerate(lines.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], "" if i < len(_COLOURS) else ' stroke-dasharray="6 3"'
        # Side by side, so that bars do not hide each other.
        shift = 3.0 * (i - len(lines) / 2)
        path = "L".join(
            f"{x(rate, shift):.1f} {y(mean):.1f}" for rate, (mean, _, _) in sorted(values.items())
        )
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        for rate, (mean, deviation, _) in values.items():
            bar = f"M{x(rate, shift):.1f} {y(mean - deviation):.1f}V{y(mean + deviation):.1f}"
            body.append(f'<path d="{bar}" stroke="{colour}" stroke-width="1"/>')
        top = _TOP + 24 + 17 * i
        body.append(f'<path d="M{_WIDTH - _RIGHT + 20} {top}h24" stroke="{colour}" stroke-width="2"{dash}/>')
        body.append(f'<text x="{_WIDTH - _RIGHT + 50}" y="{top + 4}">{html.escape(method)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    )
    return "\n".join([f'{head} font-size="12">', *body, "</svg>"]) + "\n"
