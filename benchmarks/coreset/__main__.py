"""Which coreset trains the better model: methods x pruning rates x seeds on one data set.

For each seed a model is trained on everything; its log gives the scores, its features (or ready
embeddings) the graph. Then each cell chooses a coreset, trains a fresh model on it for the same
number of steps, and tests that. A cell leaves one small file when it is done, so the program may be
ended at any time and goes on where it was; `results.parquet`, `results.md` and `results.svg` in
`--out` are made anew from all cells at the end of each call.

    python -m benchmarks.coreset --dataset sentences --data reviews.tsv --out out/sentences --seeds 5
    python -m benchmarks.coreset --dataset cifar10 --data train.parquet,test.parquet --out out/cifar10
    python -m benchmarks.coreset --dataset cifar10 --data train.parquet,test.parquet --out out/resnet18 \
        --model resnet18 --device cuda --limit 50000 --size 32 --steps 7800 --batch-size 256 --lr
        0.2 --epochs 20
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
# Recipes by data set; the images' on a CPU is sized for minutes, not for the last per cent.
RECIPES = {
    "tiny": Recipe("mlp", 60, 32, 0.1, 4, "cpu"),
    "sentences": Recipe("mlp", 600, 64, 0.1, 10, "cpu"),
    "cifar10": Recipe("small", 400, 128, 0.2, 8, "cpu"),
}


def run(
    settings: Settings, out: Path, methods: Sequence[str], rates: Sequence[float], seeds: int,
    executor: Executor, workers: int = 1, seconds: float | None = None,
) -> bool:  # fmt: skip
    """Compute the cells that have no file yet; True when all are done.

    Raises:
        UserError: the folder holds figures of other settings.
    """
    claim(out, settings)
    full = [Cell(FULL, 0.0, seed) for seed in range(seeds)]
    # Seed by seed, so that a run cut short has every method.
    rest = [Cell(method, rate, seed) for seed in range(seeds) for rate in rates for method in methods]
    return compute(partial(worker, settings, str(out)), out, (full, rest), executor, workers, seconds)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=list(RECIPES), required=True)
    parser.add_argument("--data", help="files of the data set; tiny needs none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=[*coreset_methods.PAPER, *coreset_methods.REST])
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES), help="shares pruned")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="training samples to choose from; cifar10: 10,000")
    parser.add_argument("--size", type=int, default=16, help="pixels on a side that images are shrunk to")
    parser.add_argument("--workers", type=int, default=0, help="on a local Ray; 0: in this process")
    parser.add_argument("--seconds", type=float, help="start no new cells after this long")
    for field in dataclasses.fields(Recipe):
        kind = {"int": int, "float": float, "str": str}[str(field.type)]
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help="of the recipe")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute what is missing, then make table and plot of all there is."""
    args = parse(arguments)
    names = [field.name for field in dataclasses.fields(Recipe)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    limit = args.limit or (10_000 if args.dataset == "cifar10" else None)
    recipe = dataclasses.replace(RECIPES[args.dataset], **given)
    settings = Settings(args.dataset, args.data, limit, args.size, recipe)
    try:
        coreset_methods.check(args.methods)
        executor: Executor = OnRay(None, args.workers) if args.workers else InProcess()
        try:
            done = run(
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
    if not done:
        print("not all cells are done: run the same again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
