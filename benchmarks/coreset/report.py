"""Table and plot of the coreset benchmark, from the files of its cells; see `benchmarks.coreset`.

Reads `cells/` in the output folder; writes `results.parquet`, `results.md` and `results.svg`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.cells import read_all
from d2prune import store

RESULTS = pa.schema(
    [
        ("method", pa.string()),
        ("pruned", pa.float64()),
        ("seed", pa.int64()),
        ("kept", pa.int64()),
        ("accuracy", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""One row per finished cell."""

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
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 440, 60, 20, 200, 50

Points = Mapping[str, Mapping[float, tuple[float, float, int]]]


def write(out: Path, methods: Sequence[str]) -> None:
    """Write `results.parquet` of all cells, and `results.md` and `results.svg` of these methods."""
    table = pa.Table.from_pylist(read_all(out), schema=RESULTS)
    pq.write_table(table, out / "results.parquet")
    points = summarise(table, methods)
    store.write_bytes(str(out / "results.md"), markdown(points).encode())
    store.write_bytes(str(out / "results.svg"), svg(points).encode())


def summarise(table: pa.Table, methods: Sequence[str]) -> Points:
    """Return method -> share pruned -> (mean accuracy in %, sample deviation, number of seeds)."""
    method_C, pruned_C = table["method"].to_numpy(zero_copy_only=False), table["pruned"].to_numpy()
    accuracy_C = 100 * table["accuracy"].to_numpy()
    points: dict[str, dict[float, tuple[float, float, int]]] = {}
    for method in methods:
        for pruned in sorted(set(pruned_C[method_C == method].tolist())):
            values = accuracy_C[(method_C == method) & (pruned_C == pruned)]
            deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            points.setdefault(method, {})[pruned] = (float(values.mean()), deviation, len(values))
    return points


def markdown(points: Points) -> str:
    """Return the table: a row per method, a column per share pruned, best values in bold."""
    rates = sorted({rate for values in points.values() for rate in values if rate})
    best = {
        rate: max((values[rate][0] for values in points.values() if rate in values), default=np.inf)
        for rate in rates
    }
    lines = ["| accuracy, % | " + " | ".join(f"{rate:.0%} pruned" for rate in rates) + " | seeds |"]
    lines.append("|---" * (len(rates) + 2) + "|")
    for method, values in points.items():
        seeds = sorted({count for _, _, count in values.values()})
        counts = "-".join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1])))
        if 0.0 in values:
            mean, deviation, _ = values[0.0]
            lines.append(f"| {method}: {mean:.1f} ± {deviation:.1f} |" + " |" * len(rates) + f" {counts} |")
            continue
        cells = []
        for rate in rates:
            mean, deviation, count = values.get(rate, (np.nan, 0.0, 0))
            text = f"{mean:.1f} ± {deviation:.1f}" if count > 1 else f"{mean:.1f}"
            cells.append("" if not count else f"**{text}**" if mean == best[rate] else text)
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {counts} |")
    return "\n".join(lines) + "\n"


def svg(points: Points) -> str:
    """Return the plot: accuracy against the share pruned, with bars of one deviation."""
    lines = {method: values for method, values in points.items() if values.keys() - {0.0}}
    level = next((values[0.0][0] for values in points.values() if 0.0 in values), None)
    means = [mean for values in lines.values() for mean, _, _ in values.values()] + ([level] if level else [])
    if not means:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    low, high = np.floor(min(means) / 5) * 5, np.ceil(max(means) / 5) * 5 + 1

    def x(rate: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * rate

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)

    body = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>']
    for value in np.arange(low, high, 5):
        body.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        body.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
    body += [
        f'<text x="{x(rate):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{rate:.0%}</text>'
        for rate in sorted({rate for values in lines.values() for rate in values})
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    body.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">pruned</text>')
    turned = f'transform="translate(16 {_HEIGHT / 2}) rotate(-90)"'
    body.append(f'<text {turned} text-anchor="middle">test accuracy, %</text>')
    if level is not None:
        body.append(
            f'<path d="M{_LEFT} {y(level):.1f}H{_WIDTH - _RIGHT}" stroke="black" stroke-dasharray="4 4"/>'
        )
        body.append(
            f'<path d="M{_WIDTH - _RIGHT + 20} {_TOP + 7}h24" stroke="black" stroke-dasharray="4 4"/>'
        )
        body.append(f'<text x="{_WIDTH - _RIGHT + 50}" y="{_TOP + 11}">all samples</text>')
    for i, (method, values) in enumerate(lines.items()):
        colour, dash = _COLOURS[i % len(_COLOURS)], "" if i < len(_COLOURS) else ' stroke-dasharray="6 3"'
        path = "L".join(f"{x(rate):.1f} {y(mean):.1f}" for rate, (mean, _, _) in sorted(values.items()))
        body.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        for rate, (mean, deviation, _) in values.items():
            bar = f"M{x(rate):.1f} {y(mean - deviation):.1f}V{y(mean + deviation):.1f}"
            body.append(f'<path d="{bar}" stroke="{colour}" stroke-width="1"/>')
        top = _TOP + 24 + 17 * i
        body.append(f'<path d="M{_WIDTH - _RIGHT + 20} {top}h24" stroke="{colour}" stroke-width="2"{dash}/>')
        body.append(f'<text x="{_WIDTH - _RIGHT + 50}" y="{top + 4}">{html.escape(method)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
    )
    return "\n".join([f'{head} font-size="12">', *body, "</svg>"]) + "\n"
