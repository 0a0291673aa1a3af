"""Progress of one stage: a live bar on a terminal, a log line every 10 s elsewhere.

Shows the share that is done, the rate, the time left and the memory in use on this machine. Work
that takes less than a second is not shown.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from d2prune import console

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
_LOG_INTERVAL_S = 10.0
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
    with Live(stage, total, "units", finished) as live:
        for item in items:
            done += 1
            n_samples += samples(item)
            live.update(done, n_samples, note=describe())
            yield item


class Live:
    """The progress of one stage, shown while the context is open."""

    def __init__(self, stage: str, total: int, unit: str, finished: int = 0) -> None:
        """Show nothing yet; `finished` units were complete before and do not count for the rate."""
        self._stage, self._total, self._unit, self._finished = stage, total, unit, finished
        self._start = self._last_log = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, samples: int = 0, note: str = "", total: int | None = None) -> None:
        """Show the current state.

        Args:
            done: units that are done.
            samples: samples done since the start; with 0 the rate counts units.
            note: further text.
            total: replaces the total, if that was not known at the start.
        """
        now = time.monotonic()
        self._total = total or self._total
        if sys.stderr.isatty():
            if self._bar is None and now - self._start >= _SHOW_AFTER_S and done < self._total:
                self._bar = _start_bar()
                self._task = self._bar.add_task(
                    self._stage, total=self._total, unit=self._unit, left="?", note=""
                )
            if self._bar is not None:
                shown = _join_parts(self._format_rate(done, samples, now), note, format_memory())
                self._bar.update(
                    self._task, completed=done, note=shown, left=self._format_time_left(done, now)
                )
        elif now - self._last_log >= _LOG_INTERVAL_S:
            self._last_log = now
            shown = _join_parts(
                f"{done:,} of {self._total:,} {self._unit}",
                self._format_rate(done, samples, now),
                f"about {self._format_time_left(done, now)} left",
                note,
                format_memory(),
            )
            log.info("%s: %s", self._stage, shown)

    def _format_rate(self, done: int, samples: int, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        per_second = (samples or done - self._finished) / seconds
        digits = 0 if per_second >= 10 else 2
        return f"{per_second:,.{digits}f} {'samples' if samples else self._unit}/s"

    def _format_time_left(self, done: int, now: float) -> str:
        new = done - self._finished
        if new <= 0:
            return "?"
        seconds = round((self._total - done) * (now - self._start) / new)
        minutes, rest = divmod(seconds, 60)
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
        TextColumn("left {task.fields[left]}  {task.fields[note]}", markup=False),
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
