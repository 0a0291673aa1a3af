r"""A small version of docs/results/labelled.md: do the signs of its differences come out again?

    python -m benchmarks.coreset.signs --table docs/results/labelled.csv --out out/signs \
        --sentences reviews.tsv

Of each data set given, it takes a part (3,000 samples), three seeds, two rates and five methods, and
compares the difference to random sampling with that of the table. Checked are the differences of the
table of a point and more; a sign disagrees if the small difference has the other one and its 95 %
interval excludes 0. CIFAR-10 is left out: at 90 % of 3,000 pruned, 300 images are left, and D2 gains
6 points there that it does not gain on 50,000. Exits with 1 if any disagrees. About two minutes on two
cores, most of it for the features.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.coreset import __main__ as coreset
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset import table as coreset_table
from benchmarks.coreset.report import RANDOM, Accuracies, difference, group

DATA = {"sentences": "sentences", "newsgroups": "newsgroups"}
BOTH_NARROW = "d2:aum:4/median:4/median"
METHODS = (RANDOM, "d2:aum", coreset_methods.BY_DEFAULT, BOTH_NARROW, "top:aum")
RATES, SEEDS, LIMIT, CLEAR = (0.5, 0.9), 3, 3000, 1.0


def find_experiment(experiments: Mapping[str, Accuracies], dataset: str) -> Accuracies:
    """Return the experiment of a data set's test split with the most cells."""
    found = [points for name, points in experiments.items() if name.startswith(f"{dataset}/test/")]
    return max(found, key=len, default={})


def compare(large: Accuracies, small: Accuracies) -> tuple[list[str], int]:
    """Return a line of the table for each checked difference, and the number that disagree."""
    lines, wrong = [], 0
    for method in METHODS[1:]:
        for rate in RATES:
            there, here = (difference(points, method, RANDOM, rate) for points in (large, small))
            if there is None or here is None or there.sign == 0 or abs(there.mean) < CLEAR:
                continue
            disagrees = here.sign == -there.sign
            wrong += disagrees
            lines.append(
                f"| {method} | {rate:.0%} | {there.mean:+.1f} ± {there.half:.1f} | "
                f"{here.mean:+.1f} ± {here.half:.1f} | {'NO' if disagrees else 'yes'} |"
            )
    return lines, wrong


def check(dataset: str, data: str, out: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Run the small version of a data set, print the comparison, return the number that disagree."""
    arguments = ["--dataset", dataset, "--data", data, "--out", str(out / dataset), "--limit", str(LIMIT)]
    arguments += ["--seeds", str(SEEDS), "--rates", *map(str, RATES), "--methods", *METHODS]
    code = coreset.main(arguments)
    if code:
        raise SystemExit(code)
    small = group(coreset_table.read(out / dataset / "cells.csv"))
    lines, wrong = compare(find_experiment(group(rows), dataset), find_experiment(small, dataset))
    print(f"\n{dataset}, points against random sampling\n")
    print("| method | pruned | in the table | here | sign agrees |\n|---|---|---|---|---|")
    print("\n".join(lines))
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare every data set given; return 1 if a sign disagrees."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True, help="csv file with the results to check")
    parser.add_argument("--out", type=Path, required=True, help="folder for cells and features")
    for name in DATA:
        parser.add_argument(f"--{name}", help="the data set's files, as --data of benchmarks.coreset")
    args = parser.parse_args(arguments)
    given = {name: getattr(args, name) for name in DATA if getattr(args, name)}
    if not given:
        parser.error(f"no data set given; expected {', '.join('--' + name for name in DATA)}")
    rows = coreset_table.read(args.table)
    wrong = sum(check(DATA[name], data, args.out, rows) for name, data in given.items())
    print(f"\nsigns that disagree: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
