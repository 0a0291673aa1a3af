"""The page of results: tables and figures from the table of students.

Reads the lines of `students`; writes `docs/results/icons.md` and figures beside the other images. What
is chosen reads the choosing split alone; every other figure is of the testing split.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.icons import figures, methods, plan
from benchmarks.icons.statistics import Difference, mean, paired
from benchmarks.icons.students import Job, Result
from d2prune import store

FIGURES = ("recall_1", "recall_10", "zero_shot")
_HEADS = {"recall_1": "R@1", "recall_10": "R@10", "zero_shot": "zero-shot"}
_NAMES = {
    methods.RANDOM: "random sampling", "score": "top by CLIP score", "score@s_clip_loss": "top by s-CLIPLoss",
    methods.ALL: "all pairs", methods.RIGHT: "right captions only", methods.PAPER: "D2, paper's settings (k = 1, gamma 1)",
}  # fmt: skip


def describe(method: str) -> str:
    """Return a method's name in words."""
    if method in _NAMES:
        return _NAMES[method]
    head, _, features = method.partition("+")
    head, _, score = head.partition("@")
    name, *numbers = head.split(":")
    gammas = [number.replace("/median", "") + "/median" if "median" in number else number for number in numbers[1:]]
    if name == "d2":
        both = f"gamma {gammas[0]}" if len(gammas) == 1 else f"forward {gammas[0]}, reverse {gammas[1]}"
        text = f"D2, k = {numbers[0]}, {both}"
    elif name == "forward":
        text = f"forward pass alone, k = {numbers[0]}, gamma {gammas[0]}"
    elif name == "semdedup":
        text = f"SemDeDup at cosine {numbers[0]}, then CLIP score"
    else:
        text = "facility location"
    return text + (", on s-CLIPLoss" if score else "") + (f", {features} features" if features else "")


class Table:
    """The lines of one table, looked up by job."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._found = {(result.job, result.split): result for result in results}

    def seeds(self, job: Job, split: str) -> dict[int, Result]:
        """Return seed -> result of a job under every seed."""
        return {
            found.seed: result
            for (found, of_split), result in self._found.items()
            if of_split == split and _without_seed(found) == _without_seed(job)
        }

    def figure(self, job: Job, split: str, name: str) -> dict[int, float]:
        """Return seed -> a figure in percent."""
        return {seed: 100 * float(getattr(result, name)) for seed, result in self.seeds(job, split).items()}

    def difference(self, job: Job, against: Job, split: str, name: str) -> Difference | None:
        """Return the paired difference of a figure in points; None without a common seed."""
        of, other = self.figure(job, split, name), self.figure(against, split, name)
        return paired(of, other) if of.keys() & other.keys() else None


def job(method: str, fraction: float = plan.FRACTION, **changes: float | str) -> Job:
    """Return a job of the benchmark's own settings, with some changed."""
    values = {"noise": plan.NOISE, "teacher": plan.TEACHER, "samples": plan.SAMPLES} | changes
    return Job(method=method, fraction=fraction, seed=0, **values)  # type: ignore[arg-type]


def _without_seed(of: Job) -> tuple[object, ...]:
    fraction = 1.0 if of.method == methods.ALL else of.fraction
    return of.noise, of.teacher, of.method, fraction, of.samples


def tabulate(
    table: Table, rows: Sequence[tuple[str, Job]], against: Job | None, split: str = "testing"
) -> str:
    """Return a table: figures of each job in percent, and its difference to another job.

    Rows without a result are left out.
    """
    compared = f" against {describe(against.method)}" if against else ""
    head = ["", "wrong captions kept", *_HEADS.values(), "seeds"]
    if against:
        head[-1:-1] = [f"{_HEADS[name]}{compared}" for name in ("recall_10", "zero_shot")]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for text, of in rows:
        found = table.seeds(of, split)
        if not found:
            continue
        cells = [text, f"{100 * mean([result.wrong for result in found.values()])[0]:.1f} %"]
        for name in FIGURES:
            middle, deviation = mean(list(table.figure(of, split, name).values()))
            cells.append(f"{middle:.1f} ± {deviation:.1f}" if len(found) > 1 else f"{middle:.1f}")
        if against:
            cells += [
                "" if of == against else format_difference(table.difference(of, against, split, name))
                for name in ("recall_10", "zero_shot")
            ]
        lines.append("| " + " | ".join([*cells, str(len(found))]) + " |")
    return "\n".join(lines) + "\n"


def format_difference(found: Difference | None) -> str:
    """Return a difference in points with its 95 % interval, in bold if it excludes zero."""
    if found is None or found.pairs == 1:
        return "" if found is None else f"{found.mean:+.1f}"
    text = f"{found.mean:+.1f} ({found.mean - found.margin:+.1f} to {found.mean + found.margin:+.1f})"
    return f"**{text}**" if found.sign else text


def write(results: Sequence[Result], page: Path) -> None:
    """Stub."""
