r"""Which coreset trains the better classifier: methods x pruning rates x seeds on one data set.

    python -m benchmarks.coreset --dataset sentences --data reviews.tsv --out out/sentences --seeds 5
    python -m benchmarks.coreset --dataset cifar10 --data train.parquet,test.parquet --out out/cifar10
    python -m benchmarks.coreset --dataset cifar10 --data train.parquet,test.parquet --out out/resnet18 \
        --model resnet18 --device cuda --limit 50000 --size 32 --steps 7800 --batch-size 256 --lr 0.2 \
        --epochs 20

For each seed, a model is trained on all samples: its log gives the difficulty scores, and its
features (or given embeddings) the graph. Then every cell (method, pruning rate, seed) chooses a
coreset, trains a new model on it for the same number of steps, and measures its test accuracy.

Every finished cell writes one file to `--out`, so the program may be killed at any time and the
same command resumes it. At the end of each call, `results.parquet`, `results.md` and `results.svg`
in `--out` are rewritten from all finished cells.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.cells import Cell, claim, compute
from benchmarks.coreset import methods as coreset_methods
from benchmarks.coreset import report as coreset_report
from benchmarks.coreset.cells import FULL, Settings, worker
from benchmarks.coreset.training import Recipe
from d2prune.errors import D2PruneError
from d2prune.execution import Executor, InProcess, OnRay

RATES = (0.3, 0.5, 0.7, 0.8, 0.9)
# Recipes by data set. That of cifar10 is chosen to run for minutes on a CPU, not for best accuracy.
RECIPES = {
    "tiny": Recipe("mlp", 60, 32, 0.1, 4, "cpu"),
    "sentences": Recipe("mlp", 600, 64, 0.1, 10, "cpu"),
    "cifar10": Recipe("small", 400, 128, 0.2, 8, "cpu"),
}


def run(
    settings: Settings, out: Path, methods: Sequence[str], rates: Sequence[float], seeds: int,
    executor: Executor, workers: int = 1, seconds: float | None = None,
) -> bool:  # fmt: skip
    """Compute the cells that have no file yet. Returns whether all cells are finished.

    Raises:
        UserError: the folder holds results of other settings.
    """
    claim(out, settings)
    full = [Cell(FULL, 0.0, seed) for seed in range(seeds)]
    # Seed by seed, so that an interrupted run has results of every method.
    rest = [Cell(method, rate, seed) for seed in range(seeds) for rate in rates for method in methods]
    return compute(partial(worker, settings, str(out)), out, (full, rest), executor, workers, seconds)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=list(RECIPES), required=True)
    parser.add_argument("--data", help="files of the data set; not used by tiny")
    parser.add_argument("--out", type=Path, required=True, help="folder for cells and results")
    parser.add_argument(
        "--methods", nargs="*", default=[*coreset_methods.PAPER, *coreset_methods.REST],
        help="METHOD or METHOD:SCORE",
    )  # fmt: skip
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
    for field in dataclasses.fields(Recipe):
        kind = {"int": int, "float": float, "str": str}[str(field.type)]
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, help="replaces this setting of the training recipe")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the missing cells, then write table and plot of all finished ones."""
    args = parse(arguments)
    names = [field.name for field in dataclasses.fields(Recipe)]
    replaced = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    limit = args.limit or (10_000 if args.dataset == "cifar10" else None)
    recipe = dataclasses.replace(RECIPES[args.dataset], **replaced)
    settings = Settings(args.dataset, args.data, limit, args.size, recipe)
    try:
        coreset_methods.check(args.methods)
        executor: Executor = OnRay(None, args.workers) if args.workers else InProcess()
        try:
            finished = run(
                settings,
                args.out,
                args.methods,
                args.rates,
                args.seeds,
                executor,
                max(1, args.workers),
                args.seconds,
            )
        finally:
            executor.close()
    except D2PruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    coreset_report.write(args.out, [FULL, *args.methods])
    print((args.out / "results.md").read_text())
    if not finished:
        print("some cells are missing: run the same command again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
