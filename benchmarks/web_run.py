"""A run of a generated pool in DataComp's format, folder to subset file, in pieces and with interruptions.

    python -m benchmarks.web_run --rows 12800000 --folder DIR --minutes 60

Generates the pool (`web_pool`), then runs `d2prune run --no-ray` stage by stage: with 30 % kept, with
10 % kept, and with another gamma, killed at a random moment of that run and resumed. Each finished
output is verified, and the decisions on 200,000 rows are compared with those of the in-memory code on
the same graph. `--minutes` bounds a call: it kills what runs then, and the next call continues.
Everything measured is appended to `measured.jsonl` and `disk.csv` in the folder.

Prints a markdown table, and writes `disk.svg`: bytes of work_dir and output over time.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import PYTHONPATH, descendants
from benchmarks.web_pool import WebPool

STAGES = ("embed", "graph", "rank", "select", "write", "report")
COMPARED = 200_000
PHASES: dict[str, dict[str, Any]] = {
    "30 % kept": {"select": {"fraction": 0.3}},
    "10 % kept": {"select": {"fraction": 0.1}},
    "killed": {"select": {"fraction": 0.3, "gamma_reverse": "3/median"}},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"graph": {"features": "image"}},
    "paper": {
        "score": {"offset": 0.115},
        "graph": {"features": "image", "n_neighbors": 1, "target_recall": 0.95},
        "select": {"gamma_forward": 1.0, "gamma_reverse": 1.0},
    },
}


class OutOfTimeError(Exception):
    """The call has used its minutes."""


def measure_folder(folder: Path) -> int:
    """Bytes of the files below a folder, some of which may vanish meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(path, name)).st_size
    return total


@dataclass
class Watch:
    """Peaks of a process and its descendants, and the size of folders, while it runs.

    Attributes:
        peaks: program -> peak MiB of its largest process.
        disk: (seconds since the start, bytes).
    """

    pid: int
    folders: list[Path]
    every_s: float
    peaks: dict[str, float] = field(default_factory=dict)
    disk: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended, self._start = threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            seconds = time.monotonic() - self._start
            if not self.disk or seconds - self.disk[-1][0] >= self.every_s:
                self.disk.append((seconds, sum(map(measure_folder, self.folders))))
            for pid, title in {self.pid: "d2prune", **descendants(self.pid)}.items():
                with contextlib.suppress(OSError, StopIteration):
                    status = Path(f"/proc/{pid}/status").read_text().splitlines()
                    peak = next(line for line in status if line.startswith("VmHWM"))
                    name = "d2prune" if pid == self.pid else title.split(" -")[0][-30:]
                    self.peaks[name] = max(self.peaks.get(name, 0.0), int(peak.split()[1]) / 1024)
            if self._ended.wait(1.0):
                return


class Session:
    """One call: what earlier calls measured, and the time that is left."""

    def __init__(self, pool: WebPool, settings: str, folder: Path, minutes: float) -> None:
        """Read what earlier calls wrote to the folder."""
        self.pool, self.folder = pool, folder
        self._settings, self._end = SETTINGS[settings], time.monotonic() + 60 * minutes
        self._measured = folder / "measured.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def records(self) -> list[dict[str, Any]]:
        """Everything measured so far."""
        if not self._measured.exists():
            return []
        return [json.loads(line) for line in self._measured.read_text().splitlines()]

    def add(self, **record: Any) -> None:
        """Append a record."""
        with self._measured.open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def is_done(self, phase: str, stage: str) -> bool:
        """Whether a piece of work has finished."""
        return any((r["phase"], r["stage"], r["ended"]) == (phase, stage, "done") for r in self.records())

    def make_pool(self) -> None:
        """Write the files that are missing."""
        if self.is_done("pool", "pool"):
            return
        start, cpu = time.monotonic(), time.process_time()
        for file in range(self.pool.files):
            if time.monotonic() > self._end:
                raise OutOfTimeError
            self.pool.write(self.folder / "pool", file)
        wall = time.monotonic() - start
        self.add(
            phase="pool",
            stage="pool",
            ended="done",
            wall=wall,
            cpu=time.process_time() - cpu,
            peaks={},
            disk=0,
        )

    def configure(self, phase: str) -> Path:
        """Write the configuration of a phase."""
        merged = {name: dict(section) for name, section in self._settings.items()}
        for name, section in PHASES[phase].items():
            merged[name] = merged.get(name, {}) | section
        number = list(PHASES).index(phase)
        places = {"input": "pool", "work_dir": "work", "output": f"out-{number}"}
        values = {key: str(self.folder / name) for key, name in places.items()} | merged
        path = self.folder / f"run-{number}.json"
        path.write_text(json.dumps(values))
        return path

    def run_stage(self, phase: str, stage: str, kill_after: float | None = None) -> None:
        """Run one stage of a phase to its end, or to the end of this call's time."""
        config = self.configure(phase)
        command = ["run", "--config", str(config), "--no-ray", "--stop-after", stage]
        environment = os.environ | {"PYTHONPATH": PYTHONPATH}
        left = self._end - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        start = time.monotonic()
        with (self.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "d2prune", *command], env=environment, stdout=log, stderr=log
            )
        outputs = [self.folder / f"out-{number}" for number in range(len(PHASES))]
        watch = Watch(process.pid, [self.folder / "work", *outputs], 5.0 if self.pool.rows > 10**6 else 0.5)
        timer = threading.Timer(min(left, kill_after or left), process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        watch.stop()
        ended = {0: "done", -9: "killed"}.get(os.waitstatus_to_exitcode(status), "failed")
        cpu = usage.ru_utime + usage.ru_stime
        disk = max(size for _, size in watch.disk)
        wall = time.monotonic() - start
        self.add(phase=phase, stage=stage, ended=ended, wall=wall, cpu=cpu, peaks=watch.peaks, disk=disk)
        with (self.folder / "disk.csv").open("a", newline="") as stream:
            csv.writer(stream).writerows((phase, stage, f"{s:.1f}", size) for s, size in watch.disk)
        if ended == "failed":
            raise SystemExit(f"{phase}, {stage}: failed; see {self.folder}/log.txt")
        if ended == "killed" and kill_after is None:
            raise OutOfTimeError

    def kill_once(self, phase: str) -> None:
        """Start a phase that changes the ranking, and kill it at a random moment."""
        before = [r for r in self.records() if r["phase"] == "30 % kept" and r["stage"] in STAGES[2:]]
        moment = random.Random(self.pool.seed + self.pool.rows).uniform(0.1, 0.5)
        self.run_stage(phase, "report", kill_after=moment * sum(r["wall"] for r in before))
        if self.records()[-1]["ended"] == "done":
            raise SystemExit(f"{phase}: ended before it was killed; start again with another --seed")

    def check(self, phase: str) -> None:
        """Verify an output, and compare the decisions on a sample with the in-memory code."""
        from d2prune.config.model import RunConfig
        from d2prune.d2.api import compute_scores
        from d2prune.d2.budget import top
        from d2prune.parts.files import DECISIONS
        from d2prune.parts.neighbors import read_graph
        from d2prune.runs.finished import open_selection
        from d2prune.runs.plan import plan_run
        from d2prune.verify.folder import verify

        config = RunConfig.load(str(self.configure(phase)))
        faults = verify(config.output)
        run = open_selection(config.work_dir, plan_run(config)["select"].fingerprint)
        graph, _ = read_graph(f"{config.work_dir}/graph", run.graph.units)
        difficulty = run.parts.column(DECISIONS, "difficulty").to_numpy()
        _, score_N = compute_scores(graph, difficulty, run.gammas, 1)
        kept_N = np.zeros(len(run), bool)
        kept_N[top(score_N, run.select.counters["kept"])] = True
        rng = np.random.default_rng(self.pool.seed)
        sample_S = np.sort(rng.permutation(len(run))[:COMPARED])
        found = run.parts.take(sample_S, DECISIONS, ["selection_fixed", "kept"])
        differs = int((found["selection_fixed"].to_numpy() != score_N[sample_S]).sum())
        differs += int((found["kept"].to_numpy(zero_copy_only=False) != kept_N[sample_S]).sum())
        if faults or differs:
            raise SystemExit(f"{phase}: {faults[:3]}; {differs} of {len(sample_S)} decisions differ")
        facts = {name: run.graph.facts.get(name) for name in ("recall", "recall_low", "nlist", "nprobe")}
        counts = {"samples": len(run), "kept": int(kept_N.sum()), "compared": len(sample_S)}
        self.add(phase=phase, stage="check", ended="done", wall=0, cpu=0, peaks={}, disk=0, **facts, **counts)

    def work(self) -> None:
        """Do what is left, in order."""
        self.make_pool()
        for phase in PHASES:
            if phase == "killed" and not any(r["phase"] == "killed" for r in self.records()):
                self.kill_once(phase)
            for stage in STAGES:
                if not self.is_done(phase, stage):
                    self.run_stage(phase, stage)
            if not self.is_done(phase, "check"):
                self.check(phase)


def make_table(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table: one row for each phase and stage, pieces added up."""
    yield "| phase | stage | pieces | wall s | CPU s | peak MiB | work_dir and output, MB |"
    yield "|---|---|---|---|---|---|---|"
    keys = dict.fromkeys((r["phase"], r["stage"]) for r in records if r["stage"] != "check")
    for phase, stage in keys:
        pieces = [r for r in records if (r["phase"], r["stage"]) == (phase, stage)]
        wall, cpu = (sum(r[name] for r in pieces) for name in ("wall", "cpu"))
        peak = max((value for r in pieces for value in r["peaks"].values()), default=0)
        disk = max(r["disk"] for r in pieces) / 1e6
        yield f"| {phase} | {stage} | {len(pieces)} | {wall:.0f} | {cpu:.1f} | {peak:,.0f} | {disk:,.0f} |"
    for r in records:
        if r["stage"] == "check":
            yield (
                f"\n{r['phase']}: {r['kept']:,} of {r['samples']:,} kept; recall {r['recall']:.3f} "
                f"({r['nprobe']} of {r['nlist']} lists); {r['compared']:,} decisions equal those in memory"
            )


def draw_disk(rows: list[tuple[str, str, float, int]]) -> str:
    """The SVG of bytes over time, stages side by side."""
    width, height, left = 900, 300, 60
    times, sizes, marks, base, last = [], [], [], 0.0, ("", "", 0.0)
    for phase, stage, seconds, size in rows:
        if (phase, stage) != last[:2] or seconds < last[2]:
            base = times[-1] if times else 0.0
            if (phase, stage) != last[:2]:
                marks.append((base, stage))
        last = (phase, stage, seconds)
        times.append(base + seconds)
        sizes.append(size)
    end, top = max(times[-1], 1e-9), max(sizes) or 1
    points = " ".join(
        f"{left + t / end * width:.1f},{20 + height * (1 - size / top):.1f}"
        for t, size in zip(times, sizes, strict=True)
    )
    labels = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{20 + height}" stroke="#ddd"/>'
        + (f'<text x="{x + 2:.1f}" y="{32 + 12 * (i % 3)}">{stage}</text>' if wide else "")
        for i, (x, stage, wide) in enumerate(_place(marks, end, width, left))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 10} {height + 50}" '
        f'font-family="sans-serif" font-size="11">{labels}<polyline points="{points}" fill="none" '
        f'stroke="#0072b2" stroke-width="2"/><text x="0" y="24">{top / 1e9:.1f} GB</text>'
        f'<text x="{left}" y="{height + 40}">0 s</text><text x="{left + width}" y="{height + 40}" '
        f'text-anchor="end">{end:,.0f} s</text></svg>\n'
    )


def _place(
    marks: list[tuple[float, str]], end: float, width: int, left: int
) -> Iterator[tuple[float, str, bool]]:
    """The place of each stage's line, and whether there is room for its name."""
    for (at, stage), after in zip(marks, [*(at for at, _ in marks[1:]), end], strict=True):
        yield left + at / end * width, stage, (after - at) / end * width > 12


def main() -> None:
    """Do what is left within the time, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=12_800_000)
    parser.add_argument("--dims", type=int, default=768)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", choices=SETTINGS, default="default")
    parser.add_argument("--folder", type=Path, required=True, help="keeps everything, to continue")
    parser.add_argument("--minutes", type=float, default=60.0, help="of this call (%(default)s)")
    given = parser.parse_args()
    pool = WebPool(given.rows, given.dims, given.seed)
    session = Session(pool, given.settings, given.folder, given.minutes)
    try:
        session.work()
    except OutOfTimeError:
        print("out of time; the same command continues", flush=True)
    for line in make_table(session.records()):
        print(line)
    if (given.folder / "disk.csv").exists():
        with (given.folder / "disk.csv").open(newline="") as stream:
            rows = [(phase, stage, float(s), int(size)) for phase, stage, s, size in csv.reader(stream)]
        (given.folder / "disk.svg").write_text(draw_disk(rows))


if __name__ == "__main__":
    main()
