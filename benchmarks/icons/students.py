"""Train students on subsets and append their test results to a table.

One line per method, fraction, seed, samples seen and split. A line that exists is not computed again,
so the same command resumes, and several machines can extend one table. Each student is tested on both
splits; what is chosen reads the choosing split alone (`report.choose`).
"""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.icons import data, filtering, model
from benchmarks.icons.evaluation import Test
from benchmarks.icons.sets import Split

PIXELS = 24
TESTS: tuple[Split, ...] = ("choosing", "testing")
RECIPE = model.Recipe()


@dataclass(frozen=True)
class Job:
    """One student.

    Attributes:
        noise: share of wrong captions in the pool.
        teacher: name of the teacher.
        method: what chose its subset.
        fraction: of the pool that is kept.
        seed: of its weights and order, and of random subsets.
        samples: pairs it sees in training.
    """

    noise: float
    teacher: str
    method: str
    fraction: float
    seed: int
    samples: int


@dataclass(frozen=True)
class Result:
    """A line of the table: a job, a test split, and the figures.

    Attributes:
        kept: pairs in the subset.
        wrong: share of them with a wrong caption.
        recall_1, recall_10, zero_shot: of the test, in [0, 1].
        cpu_seconds: of training and both tests.
    """

    noise: float
    teacher: str
    method: str
    fraction: float
    seed: int
    samples: int
    split: str
    kept: int
    wrong: float
    recall_1: float
    recall_10: float
    zero_shot: float
    cpu_seconds: float

    @property
    def job(self) -> Job:
        """What was trained."""
        return Job(self.noise, self.teacher, self.method, self.fraction, self.seed, self.samples)


_FIELDS = {field.name: field.type for field in dataclasses.fields(Result)}
_PARSERS = {"float": float, "int": int, "str": str}


def read_table(path: Path) -> list[Result]:
    """Return the lines of a table, none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Result(**{name: _PARSERS[str(kind)](row[name]) for name, kind in _FIELDS.items()})
            for row in csv.DictReader(file)
        ]


def append(path: Path, results: Iterable[Result]) -> None:
    """Add lines to a table, below a head if it is new."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(_FIELDS)
        writer.writerows(
            [f"{value:.5g}" if isinstance(value, float) else value for value in dataclasses.astuple(result)]
            for result in results
        )


class Trainer:
    """Trains and tests the students of one folder, whose arrays it holds."""

    def __init__(self, folder: Path, noise: float) -> None:
        self._folder, self._noise = folder, noise
        self.pool = data.load(folder, "pool", PIXELS)
        self._images = torch.from_numpy(self.pool.images)
        self._tests = [Test(data.load(folder, split, PIXELS)) for split in TESTS]
        parts = [data.tokenize(self.pool.captions), *(test.texts for test in self._tests)]
        (self._texts, *self._test_texts), used = model.renumber(parts)
        self._vocabulary = len(used)

    def train(self, job: Job) -> list[Result]:
        """Train a student and return its line for each test."""
        rows = filtering.choose(self._folder, job.teacher, self.pool, job.method, job.fraction, job.seed)
        start = time.process_time()
        recipe = dataclasses.replace(RECIPE, steps=job.samples // RECIPE.batch_size)
        trained = model.fit(
            lambda: model.Student(self._vocabulary), self._images, self._texts, rows, recipe, job.seed,
        )  # fmt: skip
        figures = [
            test.evaluate(trained, texts) for test, texts in zip(self._tests, self._test_texts, strict=True)
        ]
        seconds = time.process_time() - start
        wrong = float(self.pool.wrong[rows].mean())
        return [
            Result(
                **dataclasses.asdict(job),
                split=split,
                kept=len(rows),
                wrong=wrong,
                **found,
                cpu_seconds=seconds,
            )
            for split, found in zip(TESTS, figures, strict=True)
        ]


def train_all(
    folder: Path, table: Path, jobs: Iterable[Job], noise: float, seconds: float | None = None
) -> bool:
    """Train the students that the table lacks; return whether all are there.

    Args:
        folder: the pool and the teachers.
        table: the file of results, written after every student.
        jobs: the students, in order.
        noise: share of wrong captions in the folder's pool; jobs with another are left out.
        seconds: time limit after which no new student is started.
    """
    torch.set_num_threads(1)
    deadline = time.monotonic() + (np.inf if seconds is None else seconds)
    done = {result.job for result in read_table(table)}
    todo = [job for job in dict.fromkeys(jobs) if job not in done and job.noise == noise]
    trainer = Trainer(folder, noise) if todo else None
    for job in todo:
        if time.monotonic() > deadline or trainer is None:
            return False
        results = trainer.train(job)
        append(table, results)
        chosen, tested = results
        print(
            f"{job.method} {job.fraction:g} seed {job.seed} samples {job.samples}: wrong {chosen.wrong:.1%}, "
            f"choosing {chosen.recall_10:.3f} {chosen.zero_shot:.3f}, testing {tested.recall_10:.3f} "
            f"{tested.zero_shot:.3f}, {chosen.cpu_seconds:.0f} CPU s",
            flush=True,
        )
    return True
