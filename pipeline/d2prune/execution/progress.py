"""Progress of one stage: a live bar on a terminal, a plain line every few seconds elsewhere (logs of jobs).

Tells how much is done, at what rate, how long it may still take and how full this machine's memory
is. Nothing here changes a result, and nothing is shown of what takes less than a second.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
_EVERY_S = 10.0
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
        items: results of units, as they come.
        stage: what the line calls it.
        total: units of the stage.
        finished: units that were done before.
        samples: how many samples an item stands for, for the rate; 0: the rate is that of units.
        describe: what else there is to say; empty: nothing.
    """
    if total == finished:
        return
    done = finished
    counted = 0
    with Live(stage, total, "units", finished) as live:
        for item in items:
            done += 1
            counted += samples(item)
            live.update(done, counted, note=describe())
            yield item


class Live:
    """One line of progress, updated as often as there is news. Use it as a context manager."""

    def __init__(self, stage: str, total: int, unit: str, finished: int = 0) -> None:
        """`finished` of `total` units were done before, and do not count for the rate."""
        self._stage, self._total, self._unit, self._finished = stage, total, unit, finished
        self._start = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Live":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, samples: int = 0, note: str = "", total: int | None = None) -> None:
        """Tell that `done` units of the total are finished, standing for `samples` samples since the start.

        `total` replaces the one given at first, where that was not known.
        """
        now = time.monotonic()
        self._total = total or self._total
        if sys.stderr.isatty():
            if self._bar is None and now - self._start >= _SHOW_AFTER_S and done < self._total:
                self._bar = _start_bar()
                self._task = self._bar.add_task(
                    self._stage, total=self._total, unit=self._unit, left="?", told=""
                )
            if self._bar is not None:
                told = ", ".join([self._rate(done, samples, now), *([note] if note else []), memory()])
                self._bar.update(self._task, completed=done, told=told, left=self._left(done, now))
        elif now - self._said >= _EVERY_S:
            self._said = now
            told = ", ".join(
                [
                    f"{done:,} of {self._total:,} {self._unit}",
                    self._rate(done, samples, now),
                    f"about {self._left(done, now)} left",
                    *([note] if note else []),
                    memory(),
                ]
            )
            log.info("%s: %s", self._stage, told)

    def _rate(self, done: int, samples: int, now: float) -> str:
        seconds = max(now - self._start, 1e-9)
        per_second = (samples or done - self._finished) / seconds
        digits = 0 if per_second >= 10 else 2
        return f"{per_second:,.{digits}f} {'samples' if samples else self._unit}/s"

    def _left(self, done: int, now: float) -> str:
        new = done - self._finished
        if new <= 0:
            return "?"
        seconds = round((self._total - done) * (now - self._start) / new)
        minutes, rest = divmod(seconds, 60)
        if not minutes:
            return f"{rest} s"
        return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _start_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<8}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,}/{task.total:,} {task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}  {task.fields[told]}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar


def memory() -> str:
    """How much of this machine's memory is in use; workers on other machines are not in it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.startswith("Mem")}
        used, total = kib["MemTotal"] - kib["MemAvailable"], kib["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return "memory ?"
    return f"memory {used / 2**20:.1f} of {total / 2**20:.0f} GB"
