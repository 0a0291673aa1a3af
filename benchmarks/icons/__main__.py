"""Which part of a noisy pool of icons trains the better CLIP, at a scale that decides.

    python -m benchmarks.icons pool --out DIR
    python -m benchmarks.icons teacher --out DIR
    python -m benchmarks.icons filter --out DIR
    python -m benchmarks.icons students --out DIR --groups choice main
    python -m benchmarks.icons report

`pool` renders npm's `@iconify/json` to tars (pool.py): names are captions, variants are natural
near-copies, 30 % of the captions are exchanged. `teacher` trains a CLIP on other sets (teacher.py).
`filter` runs `d2prune` on the tars (filtering.py). `students` trains a CLIP from scratch on each
subset, for equally many samples seen, and tests it on unseen sets (students.py). It
appends to a table and resumes from it. `report` writes docs/results/icons.md from that table.
`small` does all of it on a few thousand icons, and compares the signs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.icons import filtering, methods, plan, pool, report, small, students, teacher
from d2prune.errors import D2PruneError

RESULTS = Path("docs/results")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pool", "teacher", "filter", "students", "report", "small"):
        command = commands.add_parser(name)
        if name != "report":
            command.add_argument(
                "--out", type=Path, required=True, help="folder of the pool and all artifacts"
            )
        if name in ("pool", "students", "filter"):
            command.add_argument(
                "--noise", type=float, default=plan.NOISE, help="share of wrong captions (%(default)s)"
            )
        if name in ("pool", "small"):
            command.add_argument("--workers", type=int, default=1, help="processes that render (%(default)s)")
        if name in ("teacher", "filter"):
            command.add_argument(
                "--teacher",
                default=plan.TEACHER,
                choices=teacher.TEACHERS,
                help="which teacher (%(default)s)",
            )
        if name in ("filter", "students"):
            command.add_argument(
                "--groups", nargs="+", default=list(plan.GROUPS), choices=list(plan.GROUPS),
                help="of students in plan.py",
            )  # fmt: skip
        if name == "students":
            command.add_argument("--methods", nargs="+", help="of the groups' students, only these methods")
            command.add_argument("--seconds", type=float, help="time limit after which no student is started")
        if name in ("students", "report"):
            command.add_argument("--table", type=Path, default=RESULTS / "icons.csv", help="(%(default)s)")
        if name == "report":
            command.add_argument("--page", type=Path, default=RESULTS / "icons.md", help="(%(default)s)")
            command.add_argument("--images", type=Path, default=Path("docs/images"), help="(%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    args = parse(arguments)
    torch.set_num_threads(1)
    try:
        return _run(args)
    except D2PruneError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    if args.command == "pool":
        record = pool.build(args.out, args.workers, args.noise)
        for name, part in record["splits"].items():
            found = f"{part['pairs']:,} pairs of {len(part['sets'])} sets"
            print(f"{name}: {found}, {part['wrong']:,} wrong captions")
    elif args.command == "teacher":
        teacher.train(args.out, args.out / f"teacher-{args.teacher}", teacher.TEACHERS[args.teacher])
    elif args.command == "filter":
        filtering.run_whole(args.out, args.teacher, plan.DEFAULT, plan.FRACTION)
        for job in (job for group in args.groups for job in plan.GROUPS[group]):
            is_here = job.teacher == args.teacher and job.noise == args.noise
            if is_here and job.method not in methods.REFERENCES:
                filtering.subset_file(args.out, job.teacher, job.method, job.fraction, job.seed)
    elif args.command == "students":
        jobs = [job for group in args.groups for job in plan.GROUPS[group]]
        jobs = [job for job in jobs if args.methods is None or job.method in args.methods]
        if not students.train_all(args.out, args.table, jobs, args.noise, args.seconds):
            print("some students are missing: run the same command again")
    elif args.command == "report":
        report.write(students.read_table(args.table), args.page, args.images)
    else:
        return small.check(args.out, args.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
