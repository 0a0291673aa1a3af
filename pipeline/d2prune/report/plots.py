"""Charts as inline SVG: small pure functions of arrays that return markup.

Every chart is 400 units wide, so its text stays legible when a phone scales it down. Colours come
from the page's classes (`kept`, `dropped`, `other`); they suit colour-blind readers and light and
dark mode. Coordinates have one decimal, so equal data give equal text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from d2prune.report.page_data import FlowStep, Histogram
from d2prune.report.suppression import REPRESENTED, SuppressedSummary

WIDTH = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 28, 46
# Characters that fit under a chart; a score's name can be of any length.
_MAX_LABEL_LENGTH = 48


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers in [low, high]."""
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(span / wanted))
    step = next(unit * power for unit in (1, 2, 2.5, 5, 10) if span / (unit * power) <= wanted)
    first = int(np.ceil(low / step - 1e-9))
    return [float(index * step) for index in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def short(value: float, digits: int = 3) -> str:
    """A number as an axis shows it: 1200 is 1.2k, 0.05 stays 0.05."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}".replace("-", "\u2212")


def tick_labels(values: Sequence[float]) -> list[str]:
    """Different numbers as an axis shows them, with as many digits as tell them apart, at least 3."""
    for digits in range(3, 17):
        labels = [short(value, digits) for value in values]
        if len(set(labels)) == len(labels):
            break
    return labels


@dataclass(frozen=True)
class Axes:
    """Maps data values to coordinates of a chart; x and y are the (lowest, highest) values shown."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int

    def at_x(self, value: float) -> float:
        """Horizontal coordinate of a value."""
        return _LEFT + (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1) * (WIDTH - _LEFT - _RIGHT)

    def at_y(self, value: float) -> float:
        """Vertical coordinate of a value."""
        bottom = self.height - _BOTTOM
        return bottom - (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1) * (bottom - _TOP)

    def frame(self, x_label: str, y_label: str, x_format: Callable[[float], str] = short) -> str:
        """Grid, ticks and labels; the y label is above its axis, so that it is not rotated."""
        parts = []
        bottom = self.height - _BOTTOM
        ticks = nice_ticks(*self.y)
        for value, name in zip(ticks, tick_labels(ticks), strict=True):
            y = self.at_y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        for value in nice_ticks(*self.x):
            x = self.at_x(value)
            parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(
                f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(x_format(value))}</text>'
            )
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
        x_label, y_label = (
            label if len(label) <= _MAX_LABEL_LENGTH else label[: _MAX_LABEL_LENGTH - 1] + "\u2026"
            for label in (x_label, y_label)
        )
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(
            f'<text class="label" x="{middle}" y="{self.height - 8}" text-anchor="middle">'
            f"{escape(x_label)}</text>"
        )
        parts.append(f'<text class="label" x="2" y="14">{escape(y_label)}</text>')
        return "".join(parts)


def svg(name: str, description: str, height: int, body: str) -> Markup:
    """Wrap a chart so that assistive technology presents it as one image with a name and a description."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(name)}. {escape(description)}">{body}</svg>'
    )


def histogram(data: Histogram, name: str, x_label: str, threshold: float | None = None) -> Markup:
    """Stacked bars: kept below, dropped above; a dashed line marks the threshold."""
    height = 270
    top = int((data.kept + data.dropped).max(initial=0))
    axes = Axes((float(data.edges[0]), float(data.edges[-1])), (0, max(top * 1.05, 1)), height)
    bars = {"kept": "", "dropped": ""}
    for left, right, kept, dropped in zip(data.edges, data.edges[1:], data.kept, data.dropped, strict=False):
        x, x_end = axes.at_x(left) + 0.4, axes.at_x(right) - 0.4
        for outcome, low, high in (("kept", 0, kept), ("dropped", kept, kept + dropped)):
            if high > low:
                y, y_end = axes.at_y(high), axes.at_y(low)
                bars[outcome] += f"M{x:.1f} {y_end:.1f}V{y:.1f}H{x_end:.1f}V{y_end:.1f}z"
    body = axes.frame(x_label, "samples")
    body += "".join(f'<path class="fill {outcome}" d="{path}"/>' for outcome, path in bars.items() if path)
    if threshold is not None and axes.x[0] <= threshold <= axes.x[1]:
        x = axes.at_x(threshold)
        anchor, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
        body += (
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height - _BOTTOM}"/>'
            f'<text class="strong" x="{x + shift:.1f}" y="{_TOP + 6}" text-anchor="{anchor}">'
            f"threshold {short(threshold)}</text>"
        )
    total = f"{int(data.kept.sum()):,} kept and {int(data.dropped.sum()):,} dropped samples"
    return svg(name, f"Histogram of {total} by {x_label}", height, body)


def cosine_histogram(data: SuppressedSummary) -> Markup:
    """Bars of cosines: hatched below `suppression.REPRESENTED`, plain from there on."""
    height = 250
    top = int(data.counts.max(initial=0))
    axes = Axes((float(data.edges[0]), 1.0), (0, max(top * 1.05, 1)), height)
    paths = {"dropped": "", "close": ""}
    for left, right, count in zip(data.edges, data.edges[1:], data.counts, strict=False):
        if count:
            x, x_end = axes.at_x(left) + 0.4, axes.at_x(right) - 0.4
            style = "dropped" if (left + right) / 2 < REPRESENTED else "close"
            y, y_end = axes.at_y(count), axes.at_y(0)
            paths[style] += f"M{x:.1f} {y_end:.1f}V{y:.1f}H{x_end:.1f}V{y_end:.1f}z"
    body = axes.frame("cosine to the main suppressor", "samples dropped by suppression alone")
    body += "".join(f'<path class="fill {style}" d="{path}"/>' for style, path in paths.items() if path)
    x = axes.at_x(REPRESENTED)
    body += f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height - _BOTTOM}"/>'
    description = f"{data.unlike:,} of {data.samples:,} samples are below {REPRESENTED}"
    return svg("Cosine of each suppressed sample to its main suppressor", description, height, body)


def flow(steps: Sequence[FlowStep]) -> Markup:
    """One bar per stage: its width is the samples that reached it, hatched the samples lost before it."""
    row, full = 66, WIDTH - 4
    largest = max((step.count for step in steps), default=0) or 1
    body, before = "", 0.0
    for index, step in enumerate(steps):
        y = 24 + index * row
        width = full * step.count / largest
        lost = full * step.lost / largest
        if index:
            body += f'<path class="ribbon" d="M2 {y - row + 20}H{2 + before:.1f}L{2 + width:.1f} {y}H2z"/>'
        body += f'<rect class="fill kept" x="2" y="{y}" width="{width:.1f}" height="20" rx="2"/>'
        if step.lost:
            body += f'<rect class="fill dropped" x="{2 + width:.1f}" y="{y}" width="{lost:.1f}" '
            body += 'height="20" rx="2"/>'
            body += f'<text class="lost" x="{WIDTH - 2}" y="{y - 7}" text-anchor="end">'
            body += f"\u2212{step.lost:,} {escape(step.lost_label)}</text>"
        body += f'<text class="strong" x="2" y="{y - 7}">{escape(step.label)} '
        body += f'<tspan class="number">{step.count:,}</tspan></text>'
        before = width
    description = "; ".join(
        f"{step.label} {step.count:,}" + (f" ({step.lost:,} {step.lost_label})" if step.lost else "")
        for step in steps
    )
    return svg("Samples that reached each stage", description, 24 + len(steps) * row - row + 26, body)


def scatter(points_N2: NDArray[np.uint16], shown_N: NDArray[np.bool_], outcome: str) -> Markup:
    """Draw all points of the map in grey, and on top those with one outcome in its colour.

    Args:
        points_N2: uint16 [N, 2].
        shown_N: bool [N], which points have that outcome.
        outcome: `kept` or `dropped`.
    """
    # The map has no axes, only a scale.
    pad, span = 4, WIDTH - 8
    place_N2 = points_N2 / 65_535 * (span, -span) + (pad, WIDTH - pad)
    body = ""
    for style, chosen in (("other", ~shown_N), (outcome, shown_N)):
        # A line of length 0 with round ends is a dot, in a third of the bytes of a circle.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in place_N2[chosen])
        body += f'<path class="dots {style}" d="{dots}"/>' if dots else ""
    return svg(
        f"Map of {outcome} samples",
        f"{int(shown_N.sum()):,} of {len(points_N2):,} points are {outcome}",
        WIDTH,
        body,
    )


def share_bar(share: float, reference: float) -> Markup:
    """A bar for a share in [0, 1], with a tick at the share of the whole pool."""
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="fill dropped" width="100" height="10"/>'
        f'<rect class="fill kept" width="{100 * share:.1f}" height="10"/>'
        f'<rect class="tick" x="{100 * reference - 0.4:.1f}" width="0.8" height="10"/></svg>'
    )
