"""Tables and plot of the image-text benchmark, from the files of its cells.

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

# Columns: test results of the trained models in %; properties of the subset; facts about the cell.
TRAINED = ("recall_1", "recall_5", "recall_10", "zero_shot")
SUBSET = ("wrong", "copies", "groups", "categories", "radius", "vendi")
FACTS = ("pairs", "class_images", "classes", "score_auc", "kept", "seconds")
RESULTS = pa.schema(
    [
        *(("method", pa.string()), ("pruned", pa.float64()), ("seed", pa.int64())),
        *((name, pa.float64()) for name in (*TRAINED, *SUBSET, *FACTS)),
    ]
)
"""One row per finished cell."""

_HEADS = {
    "recall_1": "R@1, %", "recall_5": "R@5, %", "recall_10": "R@10, %", "zero_shot": "zero-shot, %",
    "wrong": "wrong captions kept, %", "copies": "copies among the kept, %", "groups": "content groups",
    "categories": "categories", "radius": "coverage radius, 90 %", "vendi": "Vendi score",
}  # fmt: skip
_FORMATS = {"groups": ".0f", "categories": ".0f", "radius": ".3f"}
_WIDTH, _LEFT, _PANEL, _ROW = 760, 170, 270, 24

Means = Mapping[str, Mapping[str, tuple[float, float, int]]]


def write(out: Path, methods: Sequence[str]) -> None:
    """Write `results.parquet` of all cells, and `results.md` and `results.svg` of these methods."""
    table = pa.Table.from_pylist(read_all(out), schema=RESULTS)
    pq.write_table(table, out / "results.parquet")
    means = summarise(table, methods)
    store.write_bytes(str(out / "results.md"), (_describe_test(table) + markdown(means)).encode())
    store.write_bytes(str(out / "results.svg"), svg(means).encode())


def summarise(table: pa.Table, methods: Sequence[str]) -> Means:
    """Return method -> figure -> (mean, sample deviation, seeds), in the order of `methods`."""
    method_C = np.array(table["method"].to_pylist(), dtype=object)
    means = {}
    for method in methods:
        rows = method_C == method
        if rows.any():
            values = {name: table[name].to_numpy()[rows] for name in (*TRAINED, *SUBSET)}
            means[method] = {
                name: (float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else 0.0, len(x))
                for name, x in values.items()
            }
    return means


def markdown(means: Means) -> str:
    """Return two tables: test results by subset, best values in bold; properties of subsets."""
    return "\n".join([*_format_results(means), "", *_format_subsets(means)]) + "\n"


def _format_results(means: Means) -> list[str]:
    best = {name: max((values[name][0] for values in means.values()), default=0.0) for name in TRAINED}
    lines = ["| trained on | " + " | ".join(_HEADS[name] for name in TRAINED) + " | seeds |"]
    lines.append("|---" * (len(TRAINED) + 2) + "|")
    for method, values in means.items():
        cells = []
        for name in TRAINED:
            mean, deviation, _ = values[name]
            text = f"{100 * mean:.1f} ± {100 * deviation:.1f}"
            cells.append(f"**{text}**" if mean == best[name] else text)
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {values[TRAINED[0]][2]} |")
    return lines


def _format_subsets(means: Means) -> list[str]:
    lines = [
        "| subset | " + " | ".join(_HEADS[name] for name in SUBSET) + " |",
        "|---" * (len(SUBSET) + 1) + "|",
    ]
    for method, values in means.items():
        cells = [
            format(
                values[name][0] * (100 if "%" in _HEADS[name] and name != "radius" else 1),
                _FORMATS.get(name, ".1f"),
            )
            for name in SUBSET
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def svg(means: Means) -> str:
    """Return the plot of R@10 and zero-shot accuracy, with bars of one deviation."""
    height = 60 + _ROW * max(1, len(means))
    body = [f'<rect width="{_WIDTH}" height="{height}" fill="white"/>']
    for i, method in enumerate(means):
        body.append(
            f'<text x="{_LEFT - 12}" y="{44 + _ROW * i}" text-anchor="end">{html.escape(method)}</text>'
        )
    for panel, name in enumerate(("recall_10", "zero_shot")):
        left = _LEFT + panel * (_PANEL + 30)
        high = max((100 * (values[name][0] + values[name][1]) for values in means.values()), default=0.0)
        top = max(5.0, float(np.ceil(high / 5) * 5))
        body.append(
            f'<text x="{left + _PANEL / 2}" y="18" text-anchor="middle">{html.escape(_HEADS[name])}</text>'
        )
        for tick in np.linspace(0, top, 6):
            x = left + _PANEL * tick / top
            body.append(f'<path d="M{x:.1f} 26V{height - 26}" stroke="#ddd"/>')
            body.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
        for i, values in enumerate(means.values()):
            mean, deviation, _ = (100 * x for x in values[name])
            y, start, end = (
                40 + _ROW * i,
                left + _PANEL * (mean - deviation) / top,
                _PANEL * 2 * deviation / top,
            )
            body.append(f'<path d="M{start:.1f} {y}h{end:.1f}" stroke="#1f77b4"/>')
            body.append(f'<circle cx="{left + _PANEL * mean / top:.1f}" cy="{y}" r="4" fill="#1f77b4"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
    return "\n".join([f'{head} font-size="12">', *body, "</svg>"]) + "\n"


def _describe_test(table: pa.Table) -> str:
    if not len(table):
        return ""
    row = table.slice(0, 1).to_pylist()[0]
    return (
        f"Tested on {row['pairs']:.0f} pairs, each of another content group, and on "
        f"{row['class_images']:.0f} drawings of {row['classes']:.0f} categories. The score separates correct "
        f"captions from planted wrong ones with an AUC of {row['score_auc']:.3f}.\n\n"
    )
