"""Progress of one stage: a live bar on a terminal, log lines elsewhere.

Shows the share that is done, the rate, the time left if the past allows an estimate, and the memory in
use on this machine. Lines come also while nothing finishes: every 4 s in the first minute of a stage,
when workers start and kernels load, then every 10 s. Work that takes less than a second is not shown.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from d2prune import console
from d2prune.execution.time_left import TimeLeft

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
_FIRST_MINUTE_S = 60.0
_FIRST_INTERVAL_S, _LOG_INTERVAL_S = 4.0, 10.0
_TICK_S = 0.5
_SHOW_AFTER_S = 1.0


def track(
    items: Iterable[ItemT],
    stage: str,
    total: int,
    finished: int,
    samples: Callable[[ItemT], int] = lambda item: 0,
    describe: Callable[[], str] = str,
) -> Iterator[ItemT]:
    """Yield the items and show how many of `total` units are done.

    Args:
        items: results of units.
        stage: name of the stage in the display.
        total: number of units.
        finished: units that were complete before.
        samples: number of samples in an item, for the rate; with 0 the rate counts units.
        describe: returns a note to show, or an empty string.
    """
    if total == finished:
        return
    done = finished
    n_samples = 0
    with Live(stage, total, "units", finished, describe()) as live:
        for item in items:
            done += 1
            n_samples += samples(item)
            live.update(done, n_samples, note=describe())
            yield item


class Live:
    """The progress of one stage, shown while the context is open.

    Contexts may be nested, as the rounds of a stage in the stage: the innermost one is shown.
    """

    _open: ClassVar[list["Live"]] = []

    def __init__(self, stage: str, total: int, unit: str, finished: int = 0, note: str = "") -> None:
        """Show nothing yet.

        Args:
            stage: name of the stage in the display.
            total: number of units; 0: unknown, and only the time that has passed is shown.
            unit: name of the units.
            finished: units that were complete before and do not count for the rate.
            note: further text, until `update` replaces it.
        """
        self._stage, self._total, self._unit, self._finished = stage, total, unit, finished
        self._done, self._samples, self._note = finished, 0, note
        self._start = self._last_log = time.monotonic()
        self._time_left = TimeLeft(self._start, finished)
        self._bar: Any = None
        self._lock, self._ended = threading.Lock(), threading.Event()

    def __enter__(self) -> "Live":
        Live._open.append(self)
        threading.Thread(target=self._tick, name="d2prune-progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        with self._lock:
            Live._open.remove(self)
            for outer in Live._open:
                # What was shown just now need not be followed by a line of the stage around it.
                outer._last_log = max(outer._last_log, self._last_log)
            self._stop_bar()

    def update(self, done: int, samples: int = 0, note: str = "", total: int | None = None) -> None:
        """Show the current state.

        Args:
            done: units that are done.
            samples: samples done since the start; with 0 the rate counts units.
            note: further text.
            total: replaces the total, if that was not known at the start.
        """
        with self._lock:
            self._total = total or self._total
            self._done, self._samples, self._note = done, samples, note
            self._time_left.record(time.monotonic(), done)
            self._show()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            with self._lock:
                if not self._ended.is_set():
                    self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if Live._open and Live._open[-1] is not self:
            self._stop_bar()
        elif sys.stderr.isatty():
            self._show_bar(now)
        elif now - self._last_log >= self._interval(now):
            self._last_log = now
            parts = [
                self._format_done(),
                self._format_rate(now),
                self._format_time_left(now, "about {} left"),
            ]
            log.info("%s: %s", self._stage, _join_parts(*parts, self._note, format_memory()))

    def _interval(self, now: float) -> float:
        return _FIRST_INTERVAL_S if now - self._start < _FIRST_MINUTE_S else _LOG_INTERVAL_S

    def _show_bar(self, now: float) -> None:
        if (
            self._bar is None
            and now - self._start >= _SHOW_AFTER_S
            and (self._done < self._total or not self._total)
        ):
            self._bar = _start_bar()
            self._task = self._bar.add_task(
                self._stage, total=self._total or None, unit=self._unit, left="", note=""
            )
        if self._bar is not None:
            left = self._format_time_left(now, "left {}")
            note = _join_parts(self._format_rate(now), self._note, format_memory())
            self._bar.update(
                self._task, completed=self._done, total=self._total or None, note=note, left=left
            )

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _format_done(self) -> str:
        if not self._total:
            return f"{format_seconds(time.monotonic() - self._start)} so far"
        return f"{self._done:,} of {self._total:,} {self._unit}"

    def _format_rate(self, now: float) -> str:
        new = self._samples or self._done - self._finished
        if new <= 0:
            return ""
        per_second = new / max(now - self._start, 1e-9)
        digits = 0 if per_second >= 10 else 2
        return f"{per_second:,.{digits}f} {'samples' if self._samples else self._unit}/s"

    def _format_time_left(self, now: float, text: str) -> str:
        """The time left in a text; empty without an estimate."""
        seconds = self._time_left.estimate(now, self._total)
        return "" if seconds is None else text.format(format_seconds(seconds))


def format_seconds(seconds: float) -> str:
    """Seconds, minutes and seconds, or hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _join_parts(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _start_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<8}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,}/{task.total:,} {task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}  {task.fields[note]}", markup=False),
    )
    # Other output does not go through rich, which would write it unfiltered.
    bar = Progress(
        *columns,
        console=Console(file=console.unfiltered(sys.stderr)),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.start()
    return bar


def format_memory() -> str:
    """Memory in use on this machine, such as `memory 1.5 of 16 GB`."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith("Mem")}
        used, total = kib["MemTotal"] - kib["MemAvailable"], kib["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return "memory ?"
    return f"memory {used / 2**20:.1f} of {total / 2**20:.0f} GB"
