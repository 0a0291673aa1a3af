"""All of the benchmark on a small part of the icons, and whether the signs agree with the full one.

Reads and writes one folder; resumes like the full benchmark. Takes about five minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.icons import filtering, methods, plan, pool, students, teacher
from benchmarks.icons.report import Table, format_difference, tabulate
from benchmarks.icons.students import Job

LIMIT = 20_000
"""Random icons of the teacher's sets and of the pool's."""
SEEDS = 3
SAMPLES = 100 * students.RECIPE.batch_size
_TEACHER = teacher.Teacher(steps=300)
METHODS = (methods.RANDOM, "score", plan.DEFAULT)


def check(out: Path, workers: int) -> int:
    """Run all parts, print the table, and return 1 unless D2 trains a better model than random sampling."""
    pool.build(out, workers, limit=LIMIT)
    teacher.train(out, out / f"teacher-{plan.TEACHER}", _TEACHER)
    filtering.run_whole(out, plan.TEACHER, plan.DEFAULT, plan.FRACTION)
    jobs = [
        Job(plan.NOISE, plan.TEACHER, name, plan.FRACTION, seed, SAMPLES)
        for seed in range(SEEDS)
        for name in METHODS
    ]
    path = out / "icons.csv"
    students.train_all(out, path, jobs, plan.NOISE)
    table = Table(students.read_table(path))
    random, _, d2 = jobs[:3]
    print(tabulate(table, [(name, job) for name, job in zip(METHODS, jobs, strict=False)], random))
    failed = False
    for name in ("recall_10", "zero_shot"):
        found = table.difference(d2, random, "testing", name)
        assert found is not None
        print(f"{name}: {plan.DEFAULT} against random {format_difference(found)} points")
        failed |= found.mean <= 0
    print("signs differ from docs/results/icons.md" if failed else "signs agree")
    return int(failed)
