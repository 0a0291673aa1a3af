r"""Tables and figures of docs/results/labelled.md, from the table of finished cells.

    python -m benchmarks.coreset.labelled --table docs/results/labelled.csv --figures docs/images

Prints markdown. The default gammas of `d2_prune` for labelled data come from `rank_gammas`, which
reads the split `choose` only; its rule was written before the grids were computed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset import table as coreset_table
from benchmarks.coreset.report import (
    PUBLISHED,
    RANDOM,
    Accuracies,
    Estimate,
    accuracy_table,
    describe,
    difference,
    difference_table,
    estimate,
    figure,
    group,
    join_rates,
    list_rates,
)
from d2prune import store


def grid_table(
    points: Accuracies, rates: Sequence[float], name: str = "d2",
    forwards: Sequence[str] = coreset_methods.GRID_FORWARD,
    reverses: Sequence[str] = coreset_methods.GRID_REVERSE,
) -> str:  # fmt: skip
    """Return the mean difference to random sampling at these shares pruned, for each pair of gammas."""
    gains = [[_gain(points, f"{name}:aum:{f}:{r}", rates) for r in reverses] for f in forwards]
    best = max(map(max, gains))
    lines = ["| forward \\ reverse | " + " | ".join(reverses) + " |", "|---" * (len(reverses) + 1) + "|"]
    for forward, row in zip(forwards, gains, strict=True):
        texts = [f"**{gain:+.1f}**" if gain == best else f"{gain:+.1f}" for gain in row]
        first = "off" if forward == coreset_methods.OFF else forward
        lines.append(f"| {first} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def rank_gammas(grids: Sequence[Accuracies]) -> list[tuple[str, float, Estimate]]:
    """Rank the pairs of gammas of `UNCUT`, for the default of `d2_prune` on labelled data.

    The rule: the highest difference to random sampling, averaged over the data sets, the shares pruned,
    and D2 with and without a cut-off, on the split `choose`. Without, because `d2_prune` has none
    unless it is given a `drop_score`.

    Args:
        grids: the experiments of the split `choose`; every data set counts the same.

    Returns:
        (method, mean difference to random sampling, difference to the default paired by data set and
        seed), best first, in points.
    """
    default = coreset_methods.BY_DEFAULT
    names = [name.replace("d2_uncut", "d2") for name in coreset_methods.UNCUT]
    ranked = []
    for name in names:
        gains = [
            _pair_by_seed(points, name, [(RANDOM, rate) for rate in _rank_rates(points)]) for points in grids
        ]
        against = [_pair_by_seed(points, name, _rank_cells(points, default)) for points in grids]
        mean = float(np.mean([np.mean(one) for one in gains])) if all(gains) else np.nan
        joined = [value for one in against for value in one]
        ranked.append((name, mean, estimate(joined) if joined else Estimate(np.nan, np.inf, 0)))
    return sorted(ranked, key=lambda item: -item[1])


def _rank_rates(points: Accuracies) -> list[float]:
    return 2 * [rate for rate in list_rates(points) if (coreset_methods.GRID[0], rate) in points]


def _rank_cells(points: Accuracies, method: str) -> list[tuple[str, float]]:
    """Return the cells of a pair of gammas that count: every rate with a cut-off, then without."""
    rates = _rank_rates(points)
    uncut = method.replace("d2", "d2_uncut", 1)
    half = len(rates) // 2
    # Where no cut-off is published, D2 is the same without it.
    without = [(uncut if (uncut, rate) in points else method, rate) for rate in rates[half:]]
    return [(method, rate) for rate in rates[:half]] + without


def _pair_by_seed(points: Accuracies, method: str, others: Sequence[tuple[str, float]]) -> list[float]:
    """Return the mean difference to other cells, for each seed that all of them have."""
    pairs = [
        (points.get(a, {}), points.get(b, {}))
        for a, b in zip(_rank_cells(points, method), others, strict=True)
    ]
    common = set.intersection(*({*a} & {*b} for a, b in pairs)) if pairs else set()
    return [float(np.mean([a[seed] - b[seed] for a, b in pairs])) for seed in sorted(common)]


def write_page(rows: Sequence[Mapping[str, Any]], figures: Path | None) -> str:
    """Return all tables as markdown, and write the figures."""
    parts, grids = [], []
    for name, points in sorted(group(rows).items()):
        if "/choose/" in name:
            grids.append(points)
            parts.append(f"### {name}\n\n{describe_grid(points)}")
            continue
        parts.append(f"### {name}\n\n{accuracy_table(points)}")
        parts += [difference_table(points, RANDOM), difference_table(points, PUBLISHED)]
        if figures is not None:
            path = figures / f"labelled_{name.split('/')[0]}.svg"
            store.write_bytes(str(path), figure(points).encode())
    return "\n".join([*parts, describe_rank(grids)]) if grids else "\n".join(parts)


def describe_grid(points: Accuracies) -> str:
    """Return the tables of a grid: all rates, each rate, and each rate without a cut-off."""
    rates = [rate for rate in list_rates(points) if (coreset_methods.GRID[0], rate) in points]
    parts = [f"Mean of {join_rates(rates)} pruned:\n\n{grid_table(points, rates)}"]
    parts += [f"{join_rates([rate])} pruned:\n\n{grid_table(points, [rate])}" for rate in rates]
    uncut = "d2_uncut", coreset_methods.UNCUT_FORWARD, coreset_methods.UNCUT_REVERSE
    parts += [
        f"{join_rates([rate])} pruned, without a cut-off:\n\n{grid_table(points, [rate], *uncut)}"
        for rate in rates
        if (coreset_methods.UNCUT[0], rate) in points
    ]
    return "\n".join(parts)


def describe_rank(grids: Sequence[Accuracies]) -> str:
    """Return the table of the best gammas, the default and the worst."""
    ranked = rank_gammas(grids)
    place = next(i for i, (name, *_) in enumerate(ranked) if name == coreset_methods.BY_DEFAULT)
    lines = [f"### Gammas by `rank_gammas`; the default is number {place + 1} of {len(ranked)}\n"]
    lines.append("| gammas | against random sampling | against the default |\n|---|---|---|")
    shown = {*range(8), place, *range(len(ranked) - 3, len(ranked))}
    for name, gain, against in (ranked[i] for i in sorted(shown)):
        lines.append(f"| {describe(name)} | {gain:+.2f} | {against.mean:+.2f} ± {against.half:.2f} |")
    return "\n".join(lines) + "\n"


def _gain(points: Accuracies, method: str, rates: Sequence[float]) -> float:
    found = [difference(points, method, RANDOM, rate) for rate in rates]
    return float(np.mean([np.nan if one is None else one.mean for one in found]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True, help="csv file of benchmarks.coreset")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    args = parser.parse_args(arguments)
    print(write_page(coreset_table.read(args.table), args.figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
