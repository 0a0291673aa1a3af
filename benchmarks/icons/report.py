"""The page of results: tables and figures from the table of students.

Reads the lines of `students`; writes `docs/results/icons.md` and figures beside the other images. What
is chosen reads the choosing split alone; every other figure is of the testing split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.icons import figures, methods, plan
from benchmarks.icons.statistics import Difference, mean, paired
from benchmarks.icons.students import Job, Result
from d2prune import store

FIGURES = ("recall_1", "recall_10", "zero_shot")
_COMPARED = ("recall_10", "zero_shot")
_HEADS = {"recall_1": "R@1", "recall_10": "R@10", "zero_shot": "zero-shot"}
_NAMES = {
    methods.RANDOM: "random sampling", "score": "top by CLIP score", "score@s_clip_loss": "top by s-CLIPLoss",
    methods.ALL: "all pairs", methods.RIGHT: "right captions only",
    methods.PAPER: "D2, paper's settings (k = 1, gamma 1)",
    plan.DEFAULT: "D2, the default (8/median, 10/median)",
    f"{plan.DEFAULT}@s_clip_loss": "D2, the default, on s-CLIPLoss",
}  # fmt: skip


def describe(method: str) -> str:
    """Return a method's name in words."""
    if method in _NAMES:
        return _NAMES[method]
    head, _, features = method.partition("+")
    head, _, score = head.partition("@")
    head, _, percent = head.partition("^")
    name, *numbers = head.split(":")
    gammas = [
        number.replace("/median", "") + "/median" if "median" in number else number for number in numbers[1:]
    ]
    if name == "d2":
        both = f"gamma {gammas[0]}" if len(gammas) == 1 else f"forward {gammas[0]}, reverse {gammas[1]}"
        text = f"D2, k = {numbers[0]}, {both}"
    elif name == "forward":
        text = f"forward pass alone, k = {numbers[0]}, gamma {gammas[0]}"
    elif name == "info_max":
        text = f"InfoMax's objective, k = {numbers[0]}, alpha {numbers[1]}"
    elif name == "semdedup":
        text = f"SemDeDup at cosine {numbers[0]}, then CLIP score"
    else:
        text = "facility location"
    if percent:
        text += f", {percent} % of the scores at 0"
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
    teacher = plan.TEACHER if of.method in methods.UNSCORED else of.teacher
    return of.noise, teacher, of.method, fraction, of.samples


def tabulate(
    table: Table, rows: Sequence[tuple[str, Job]], against: Job | None, split: str = "testing"
) -> str:
    """Return a table: figures of each job in percent, and its difference to another job.

    Rows without a result are left out; a table without any is a sentence.
    """
    rows = [(text, of) for text, of in rows if table.seeds(of, split)]
    if not rows:
        return "Not run.\n"
    head = ["", "wrong captions kept", *_HEADS.values(), "seeds"]
    if against:
        head[-1:-1] = [f"difference in {_HEADS[name]}" for name in _COMPARED]
    lines = [f"Differences are to {describe(against.method)}.", ""] if against else []
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for text, of in rows:
        found = table.seeds(of, split)
        cells = [text, f"{100 * mean([result.wrong for result in found.values()])[0]:.1f} %"]
        for name in FIGURES:
            middle, deviation = mean(list(table.figure(of, split, name).values()))
            cells.append(f"{middle:.1f} ± {deviation:.1f}" if len(found) > 1 else f"{middle:.1f}")
        if against:
            cells += [
                "" if of == against else format_difference(table.difference(of, against, split, name))
                for name in _COMPARED
            ]
        lines.append("| " + " | ".join([*cells, str(len(found))]) + " |")
    return "\n".join(lines) + "\n"


def format_difference(found: Difference | None) -> str:
    """Return a difference in points with its 95 % interval, in bold if it excludes zero."""
    if found is None or found.pairs == 1:
        return "" if found is None else f"{found.mean:+.1f}"
    text = f"{found.mean:+.1f} ({found.mean - found.margin:+.1f} to {found.mean + found.margin:+.1f})"
    return f"**{text}**" if found.sign else text


def write(results: Sequence[Result], page: Path, images: Path) -> None:
    """Write the tables between the markers of a page, and its figures to a folder.

    The page's own text stays; a page that does not exist gets the tables alone.
    """
    table = Table(results)
    text = page.read_text() if page.exists() else _SKELETON
    for name, make in _SECTIONS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if found:
            text = before + start + make(table) + end + after
    store.write_bytes(str(page), text.encode())
    drawings = {name: figures.dots(rows, _heads("%")) for name, rows in _figures(table).items()}
    drawings["compute"] = figures.lines(_gaps(table), _heads("points"), "thousand samples seen")
    for name, drawing in drawings.items():
        store.write_bytes(str(images / f"icons-{name}.svg"), drawing.encode())


def _heads(unit: str) -> list[str]:
    return [f"{_HEADS[name]}, {unit}" for name in _COMPARED]


def _rows(names: Iterable[str], **changes: float | str) -> list[tuple[str, Job]]:
    return [(describe(name), job(name, **changes)) for name in dict.fromkeys(names)]  # type: ignore[arg-type]


def _main(table: Table) -> str:
    return tabulate(table, _rows((*plan.MAIN, *plan.MORE)), job("score"))


def _against_semdedup(table: Table) -> str:
    return tabulate(table, _rows((plan.DEFAULT, plan.WIDE, plan.SEMDEDUP)), job(plan.SEMDEDUP))


def _choice(table: Table) -> str:
    names = [each.method for each in plan.GROUPS["choice"]]
    return tabulate(table, _rows(names), None, "choosing")


def _fractions(table: Table) -> str:
    parts = []
    for fraction in (0.1, 0.3, 0.5):
        against = job(methods.RANDOM, fraction)
        names = [
            each.method for each in (*plan.GROUPS["tenth"], *plan.GROUPS["half"]) if each.fraction == fraction
        ]
        body = tabulate(table, _rows(names or plan.MAIN[:3], fraction=fraction), against)
        parts.append(f"{fraction:.0%} kept:\n\n{body}")
    return "\n".join(parts)


def _passes(table: Table) -> str:
    names = [plan.DEFAULT, *(each.method for each in plan.GROUPS["passes"])]
    return tabulate(table, _rows(names), job(plan.DEFAULT))


def _gammas(table: Table) -> str:
    parts = []
    for samples in (plan.SAMPLES, 4 * plan.SAMPLES):
        rows = _rows(("score", *plan.GAMMAS), samples=samples)
        body = tabulate(table, rows, job("score", samples=samples), "choosing")
        parts.append(f"{samples:,} samples seen:\n\n{body}")
    return "\n".join(parts)


def _offset(table: Table) -> str:
    parts = []
    for samples in (plan.SAMPLES, 4 * plan.SAMPLES):
        rows = _rows((plan.WIDE, plan.DEFAULT, plan.OFFSET), samples=samples)
        body = tabulate(table, rows, job(plan.WIDE, samples=samples))
        parts.append(f"{samples:,} samples seen:\n\n{body}")
    return "\n".join(parts)


def _decision(table: Table) -> str:
    parts = []
    for samples in sorted(round(factor * plan.SAMPLES) for factor in plan.LENGTHS):
        if table.seeds(job(plan.OFFSET, samples=samples), "choosing"):
            rows = _rows((plan.DEFAULT, *plan.OFFSETS), samples=samples)
            body = tabulate(table, rows, job(plan.DEFAULT, samples=samples), "choosing")
            parts.append(f"{samples:,} samples seen:\n\n{body}")
    return "\n".join(parts)


def _features(table: Table) -> str:
    names = [plan.DEFAULT, *(each.method for each in plan.GROUPS["features"])]
    return tabulate(table, _rows(names), job(plan.DEFAULT))


def _vary(group: str, name: str, unit: str) -> Callable[[Table], str]:
    """Return a section that compares the methods of a group at each value of a field of its jobs."""

    def make(table: Table) -> str:
        names = [each.method for each in plan.GROUPS[group]]
        values = sorted({getattr(each, name) for each in plan.GROUPS[group]} | {getattr(job("score"), name)})
        parts = []
        for value in values:
            rows = _rows(names, **{name: value})
            if table.seeds(job("score", **{name: value}), "testing"):
                parts.append(
                    f"{unit.format(value)}:\n\n{tabulate(table, rows, job('score', **{name: value}))}"
                )
        return "\n".join(parts)

    return make


_SECTIONS: dict[str, Callable[[Table], str]] = {
    "main": _main,
    "semdedup": _against_semdedup,
    "choice": _choice,
    "fractions": _fractions,
    "passes": _passes,
    "gammas": _gammas,
    "offset": _offset,
    "decision": _decision,
    "features": _features,
    "compute": _vary("compute", "samples", "{:,} samples seen"),
    "teachers": _vary("teachers", "teacher", "teacher `{}`"),
    "noise": _vary("noise", "noise", "{:.0%} of the captions exchanged"),
}
_SKELETON = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in _SECTIONS)


def _figures(table: Table) -> dict[str, list[tuple[str, list[figures.Point]]]]:
    """Return the rows of each figure by name."""
    found = {}
    sections = {
        "main": (*plan.MAIN, *plan.MORE),
        "passes": (plan.DEFAULT, *(j.method for j in plan.GROUPS["passes"])),
    }
    for name, names in sections.items():
        rows = []
        for text, each in _rows(names):
            if table.seeds(each, "testing"):
                values = [list(table.figure(each, "testing", key).values()) for key in _COMPARED]
                rows.append((text, [mean(value) for value in values]))
        found[name] = rows
    return found


def _gaps(table: Table) -> list[tuple[str, list[figures.Series]]]:
    """Return the differences of each method to the score against the samples seen, seed by seed."""
    samples = sorted({plan.SAMPLES} | {each.samples for each in plan.GROUPS["compute"]})
    rows = []
    for method in dict.fromkeys(each.method for each in plan.GROUPS["compute"]):
        if method in ("score", methods.RANDOM):
            continue
        panels: list[figures.Series] = []
        for name in _COMPARED:
            gaps: dict[float, list[float]] = {}
            for seen in samples:
                of = table.figure(job(method, samples=seen), "testing", name)
                score = table.figure(job("score", samples=seen), "testing", name)
                if common := of.keys() & score.keys():
                    gaps[seen / 1000] = [of[seed] - score[seed] for seed in sorted(common)]
            panels.append(gaps)
        rows.append((describe(method), panels))
    return rows
