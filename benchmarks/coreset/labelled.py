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


def grid_table(points: Accuracies, rates: Sequence[float]) -> str:
    """Return the mean difference to random sampling at these shares pruned, for each pair of gammas."""
    lines = ["| forward \\ reverse | " + " | ".join(coreset_methods.GRID_REVERSE) + " |"]
    lines.append("|---" * (len(coreset_methods.GRID_REVERSE) + 1) + "|")
    best = max(_gain(points, name, rates) for name in coreset_methods.GRID)
    for forward in coreset_methods.GRID_FORWARD:
        gains = [
            _gain(points, f"d2:aum:{forward}:{reverse}", rates) for reverse in coreset_methods.GRID_REVERSE
        ]
        texts = [f"**{gain:+.1f}**" if gain == best else f"{gain:+.1f}" for gain in gains]
        lines.append(
            f"| {'off' if forward == coreset_methods.OFF else forward} | " + " | ".join(texts) + " |"
        )
    return "\n".join(lines) + "\n"


def rank_gammas(grids: Sequence[Accuracies]) -> list[tuple[str, float, Estimate]]:
    """Rank the pairs of gammas of the grid, for the default of `d2_prune` on labelled data.

    The rule: pairs are ranked by the difference to random sampling, averaged over the data sets, the
    shares pruned and the seeds, on the split `choose`. The default changes only to a pair that is
    better than it with a 95 % interval that excludes 0; otherwise it stays.

    Args:
        grids: the grids of the split `choose`; every data set counts the same.

    Returns:
        (method, mean difference to random sampling, difference to the default paired by data set and
        seed), best first, in points.
    """
    ranked = [
        (
            name,
            float(np.mean([_gain(points, name, list_rates(points)) for points in grids])),
            _against_default(grids, name),
        )
        for name in coreset_methods.GRID
    ]
    return sorted(ranked, key=lambda item: -item[1])


def _against_default(grids: Sequence[Accuracies], method: str) -> Estimate:
    found = []
    for points in grids:
        rates = list_rates(points)
        pairs = [
            (points.get((method, rate), {}), points.get((coreset_methods.BY_DEFAULT, rate), {}))
            for rate in rates
        ]
        common = set.intersection(*({*a} & {*b} for a, b in pairs))
        found += [float(np.mean([a[seed] - b[seed] for a, b in pairs])) for seed in sorted(common)]
    return estimate(found) if found else Estimate(np.nan, np.inf, 0)


def write_page(rows: Sequence[Mapping[str, Any]], figures: Path | None) -> str:
    """Return all tables as markdown, and write the figures."""
    parts, grids = [], []
    for name, points in sorted(group(rows).items()):
        if any(method in coreset_methods.GRID[:1] for method, _ in points):
            if "/choose/" in name:
                grids.append(points)
            rates = list_rates(points)
            parts.append(
                f"### {name}: grid, mean of {join_rates(rates)} pruned\n\n{grid_table(points, rates)}"
            )
            parts += [f"{join_rates([rate])} pruned:\n\n{grid_table(points, [rate])}" for rate in rates]
            continue
        parts.append(f"### {name}\n\n{accuracy_table(points)}")
        parts.append(difference_table(points, RANDOM))
        parts.append(difference_table(points, PUBLISHED))
        if figures is not None:
            path = figures / f"labelled_{name.split('/')[0]}.svg"
            store.write_bytes(str(path), figure(points).encode())
    if grids:
        ranked = rank_gammas(grids)
        place = next(i for i, (name, *_) in enumerate(ranked) if name == coreset_methods.BY_DEFAULT)
        parts.append(f"### Gammas by `rank_gammas`; the default is number {place + 1} of {len(ranked)}\n")
        parts.append("| gammas | against random sampling | against the default |\n|---|---|---|")
        shown = dict.fromkeys([*range(8), place, *range(len(ranked) - 3, len(ranked))])
        for name, gain, against in (ranked[i] for i in sorted(shown)):
            parts.append(f"| {describe(name)} | {gain:+.2f} | {against.mean:+.2f} ± {against.half:.2f} |")
    return "\n".join(parts) + "\n"


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
