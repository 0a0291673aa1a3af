r"""Which coreset trains the better classifier: methods x pruning rates x seeds on one data set.

    python -m benchmarks.coreset --dataset sentences --data reviews.tsv --out out/sentences --seeds 5
    python -m benchmarks.coreset --dataset cifar10_features --data train.parquet,test.parquet --out out/f
    python -m benchmarks.coreset --dataset sentences --data reviews.tsv --out out/grid --split choose --grid
    python -m benchmarks.coreset --dataset cifar10 --data train.parquet,test.parquet --out out/resnet18 \
        --recipe resnet18 --limit 50000 --size 32 --seeds 1 --rates 0.7 0.9 \
        --methods random top:el2n ccs:aum d2:aum d2:aum:0.3/median:1/median     # 9 minutes of an H100

For each seed, a model is trained on all samples: its log gives the difficulty scores, and its
features (or given embeddings) the graph. Then every cell (method, pruning rate, seed) chooses a
coreset, trains a new model on it for the same number of steps, and measures its test accuracy.

`--split choose` is for settings: it drops the test set and tests on a fifth of the training samples.

Every finished cell writes one file to `--out`, so the program may be killed at any time and the
same command resumes it. At the end of each call, they are added to the csv file `--table`, and
`results.md` and `results.svg` in `--out` are rewritten. Cells that the table has are not computed
again, whatever folder they came from.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path

from benchmarks.cells import Cell, claim, compute, read_all
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset import report as coreset_report
from benchmarks.coreset import table as coreset_table
from benchmarks.coreset.cells import FULL, Settings, worker
from benchmarks.coreset.data import DATASETS, SPLITS
from benchmarks.coreset.recipe import RECIPES, Recipe
from d2prune.errors import D2PruneError
from d2prune.execution import Executor, InProcess, OnRay

RATES = (0.3, 0.5, 0.7, 0.8, 0.9)


def run(
    settings: Settings, out: Path, cache: Path, methods: Sequence[str], rates: Sequence[float], seeds: int,
    executor: Executor, workers: int = 1, seconds: float | None = None, done: Container[str] = (),
) -> bool:  # fmt: skip
    """Compute the cells that have no file yet. Returns whether all cells are finished.

    Raises:
        UserError: the folder holds results of other settings.
    """
    claim(out, settings)
    full = [Cell(FULL, 0.0, seed) for seed in range(seeds)]
    # Seed by seed, so that an interrupted run has results of every method.
    rest = [Cell(method, rate, seed) for seed in range(seeds) for rate in rates for method in methods]
    return compute(
        partial(worker, settings, str(out), str(cache)), out, (full, rest), executor, workers, seconds, done
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=list(DATASETS), required=True)
    parser.add_argument("--data", help="files of the data set; not used by tiny")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="test set, or a part of the training samples"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for cells and results")
    parser.add_argument("--cache", type=Path, help="folder for features (default: OUT/scores)")
    parser.add_argument("--table", type=Path, help="csv file of finished cells (default: OUT/cells.csv)")
    parser.add_argument(
        "--methods", nargs="*", default=[*coreset_methods.PAPER, *coreset_methods.REST],
        help="METHOD, METHOD:SCORE, or d2:SCORE:FORWARD:REVERSE with two gammas",
    )  # fmt: skip
    parser.add_argument(
        "--grid",
        nargs="?",
        const="cut",
        choices=("cut", "uncut"),
        help="random and D2 on AUM with a grid of gammas as methods, with or without a cut-off",
    )
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES), help="shares pruned")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (%(default)s)")
    parser.add_argument(
        "--limit", type=int, help="number of training samples to choose from (cifar10: 10,000)"
    )
    parser.add_argument(
        "--size", type=int, default=16, help="width of the downscaled images in pixels (%(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="workers on a local Ray; 0 runs in this process (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="time limit after which no new cells are started")
    parser.add_argument("--recipe", choices=list(RECIPES), help="of training (default: the data set's own)")
    for field in dataclasses.fields(Recipe):
        kind = {"int": int, "float": float, "str": str}[str(field.type)]
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, help="replaces this setting of the training recipe")
    args = parser.parse_args(arguments)
    if args.grid:
        grid = coreset_methods.GRID if args.grid == "cut" else coreset_methods.UNCUT
        args.methods = ["random", *grid]
    return args


def read_settings(args: argparse.Namespace) -> Settings:
    """Return the settings of a parsed command line."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    replaced = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    limit = args.limit or (10_000 if args.dataset == "cifar10" else None)
    recipe = dataclasses.replace(RECIPES[args.recipe or args.dataset], **replaced)
    return Settings(args.dataset, args.data, limit, args.size, recipe, args.split)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the missing cells, then write table and plot of all finished ones."""
    args = parse(arguments)
    settings = read_settings(args)
    table, cache = args.table or args.out / "cells.csv", args.cache or args.out / "scores"
    try:
        coreset_methods.check(args.methods)
        rows = coreset_table.read(table)
        done = coreset_table.finished(row for row in rows if row["experiment"] == settings.experiment)
        executor: Executor = OnRay(None, args.workers) if args.workers else InProcess()
        try:
            finished = run(
                settings, args.out, cache, args.methods, args.rates, args.seeds, executor,
                max(1, args.workers), args.seconds, done,
            )  # fmt: skip
        finally:
            executor.close()
            rows = coreset_table.add(table, settings.experiment, read_all(args.out))
    except D2PruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    chosen = {FULL, *args.methods}
    points = coreset_report.group([row for row in rows if row["method"] in chosen])
    print(coreset_report.write(args.out, points.get(settings.experiment, {})))
    if not finished:
        print("some cells are missing: run the same command again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
