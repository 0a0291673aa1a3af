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
    accuracy_table,
    difference,
    difference_table,
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


def rank_gammas(grids: Sequence[Accuracies]) -> list[tuple[str, float]]:
    """Rank the pairs of gammas of the grid; the first is the best default for labelled data.

    The rule: the highest difference to random sampling, averaged over the data sets, the shares pruned
    and the seeds, on the split `choose`. Every data set counts the same.

    Args:
        grids: the grids of the split `choose`.

    Returns:
        (method, mean difference in points), best first.
    """
    means = {
        name: float(np.mean([_gain(points, name, list_rates(points)) for points in grids]))
        for name in coreset_methods.GRID
    }
    return sorted(means.items(), key=lambda item: -item[1])


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
        ranked = [f"- {method}: {gain:+.2f}" for method, gain in rank_gammas(grids)[:10]]
        parts.append("### Gammas by `rank_gammas`, points against random sampling\n\n" + "\n".join(ranked))
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
