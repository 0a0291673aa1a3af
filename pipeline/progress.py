"""Progress of one stage: a live bar on a terminal, a plain line every few seconds elsewhere (logs of jobs)."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
_EVERY_S = 10.0


def track(
    items: Iterable[ItemT], stage: str, total: int, finished: int, describe: Callable[[], str] = str
) -> Iterator[ItemT]:
    """Yield the items and show how many of `total` units are done; `finished` were done before.

    `describe` has more to say, such as a rate; empty while it has not.
    """
    if total == finished:
        return
    if sys.stderr.isatty():
        yield from _bar(items, stage, total, finished, describe)
    else:
        yield from _lines(items, stage, total, finished, describe)


def _bar(items: Iterable[ItemT], stage: str, total: int, finished: int, describe: Callable[[], str]) -> Iterator[ItemT]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(stage, total=total, completed=finished, more="")
        for item in items:
            progress.update(task, advance=1, more=describe())
            yield item


def _lines(
    items: Iterable[ItemT], stage: str, total: int, finished: int, describe: Callable[[], str]
) -> Iterator[ItemT]:
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - said >= _EVERY_S:
            left = (total - finished - done) * (now - start) / done
            more = f"; {described}" if (described := describe()) else ""
            log.info("%s: %d of %d units, about %.0f s left%s", stage, finished + done, total, left, more)
            said = now
        yield item
