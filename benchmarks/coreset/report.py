"""Tables of the coreset benchmark, from rows of its table; see `benchmarks.coreset`.

Every interval is a 95 % interval over seeds (Student's t). Differences are paired by seed: the same
scores, initialisation and test set, another coreset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset.cells import FULL
from benchmarks.coreset.plot import svg
from d2prune import store

# Student's t at 97.5 %, by degrees of freedom.
_T = (np.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
RANDOM, PUBLISHED = "random", "d2:aum"
_PLOTTED = (
    PUBLISHED,
    coreset_methods.BY_DEFAULT,
    coreset_methods.BY_DEFAULT.replace("d2", "d2_uncut", 1),
    "d2:aum:1:4/median",
    "ccs:aum",
    "facility_location",
    "semdedup",
)

Accuracies = Mapping[tuple[str, float], Mapping[int, float]]
"""(method, share pruned) -> seed -> accuracy in %."""


class Estimate(NamedTuple):
    """A mean, half the width of its 95 % interval, and the number of seeds."""

    mean: float
    half: float
    n_seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, else 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.half:.1f}" if self.n_seeds > 1 else f"{self.mean:.1f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of the values of all seeds, with its interval; one value has none."""
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]), np.inf, n)
    quantile = _T[n - 1] if n <= len(_T) else 1.96
    return Estimate(float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / np.sqrt(n), n)


def group(rows: Sequence[Mapping[str, Any]]) -> dict[str, Accuracies]:
    """Return the accuracies of each experiment."""
    found: dict[str, dict[tuple[str, float], dict[int, float]]] = {}
    for row in rows:
        cells = found.setdefault(row["experiment"], {}).setdefault((row["method"], row["pruned"]), {})
        cells[row["seed"]] = 100 * row["accuracy"]
    return dict(found)


def difference(points: Accuracies, method: str, other: str, pruned: float) -> Estimate | None:
    """Return the difference of two methods, paired by seed; None without two common seeds."""
    a, b = points.get((method, pruned), {}), points.get((other, pruned), {})
    common = sorted(a.keys() & b.keys())
    return estimate([a[seed] - b[seed] for seed in common]) if len(common) > 1 else None


def list_methods(points: Accuracies) -> list[str]:
    """Return the methods of an experiment: the paper's first, the grid last."""
    known = [*coreset_methods.PAPER, *coreset_methods.REST]
    found = {method for method, _ in points} - {FULL}
    return [name for name in known if name in found] + sorted(found - set(known))


def list_rates(points: Accuracies) -> list[float]:
    """Return the shares pruned of an experiment, ascending."""
    return sorted({pruned for _, pruned in points} - {0.0})


def accuracy_table(points: Accuracies) -> str:
    """Return the accuracies, a row per method and a column per share pruned; best means in bold."""
    rates, methods = list_rates(points), list_methods(points)
    estimates = {key: estimate(list(seeds.values())) for key, seeds in points.items()}
    best = {rate: max(e.mean for (_, pruned), e in estimates.items() if pruned == rate) for rate in rates}
    full = estimates.get((FULL, 0.0))
    lines = [_header(f"accuracy, % (all samples: {full})" if full else "accuracy, %", rates)]
    for method in methods:
        row = [estimates.get((method, rate)) for rate in rates]
        texts = [
            "" if one is None else f"**{one}**" if one.mean == best[rate] else str(one)
            for rate, one in zip(rates, row, strict=True)
        ]
        lines.append(f"| {describe(method)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def difference_table(points: Accuracies, other: str) -> str:
    """Return paired differences against a method; those whose interval excludes 0 in bold."""
    rates = list_rates(points)
    lines = [_header(f"points against `{other}`", rates)]
    for method in list_methods(points):
        row = [difference(points, method, other, rate) for rate in rates]
        if method != other and any(row):
            texts = [
                "" if one is None else f"**{one.mean:+.1f} ± {one.half:.1f}**" if one.sign
                else f"{one.mean:+.1f} ± {one.half:.1f}"
                for one in row
            ]  # fmt: skip
            lines.append(f"| {describe(method)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def figure(points: Accuracies) -> str:
    """Return the plot: difference to random sampling against the share pruned, with intervals.

    Of a few methods; the tables have all.
    """
    lines = {}
    for method in _PLOTTED:
        found = {rate: difference(points, method, RANDOM, rate) for rate in list_rates(points)}
        known = {rate: one for rate, one in found.items() if one is not None}
        if known:
            lines[method] = known
    return svg(lines, "points against random sampling", 1.0, 0.0, "random sampling")


def write(out: Path, points: Accuracies) -> str:
    """Write `results.md` and `results.svg` of an experiment and return the former."""
    parts = [accuracy_table(points), difference_table(points, RANDOM)]
    if PUBLISHED in list_methods(points):
        parts.append(difference_table(points, PUBLISHED))
    text = "\n".join(parts)
    store.write_bytes(str(out / "results.md"), text.encode())
    store.write_bytes(str(out / "results.svg"), figure(points).encode())
    return text


def describe(method: str) -> str:
    """Return a method's name for tables."""
    return f"**{method}** (the default gammas)" if method == coreset_methods.BY_DEFAULT else method


def join_rates(rates: Sequence[float]) -> str:
    """Return shares pruned as text, such as `50, 70 %`."""
    return ", ".join(f"{100 * rate:g}" for rate in rates) + " %"


def _header(first: str, rates: Sequence[float]) -> str:
    columns = " | ".join(f"{rate:.0%} pruned" for rate in rates)
    return f"| {first} | {columns} |\n" + "|---" * (len(rates) + 1) + "|"
