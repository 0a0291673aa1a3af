"""Progress of one stage: a live bar on a terminal, a plain line every few seconds elsewhere (logs of jobs)."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
_EVERY_S = 10.0


def track(items: Iterable[ItemT], stage: str, total: int, finished: int) -> Iterator[ItemT]:
    """Yield the items and show how many of `total` units are done; `finished` were done before."""
    if total == finished:
        return
    if sys.stderr.isatty():
        yield from _bar(items, stage, total, finished)
    else:
        yield from _lines(items, stage, total, finished)


def _bar(items: Iterable[ItemT], stage: str, total: int, finished: int) -> Iterator[ItemT]:
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
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(stage, total=total, completed=finished)
        for item in items:
            progress.advance(task)
            yield item


def _lines(items: Iterable[ItemT], stage: str, total: int, finished: int) -> Iterator[ItemT]:
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        now = time.monotonic()
        if now - said >= _EVERY_S:
            left = (total - finished - done) * (now - start) / done
            log.info("%s: %d of %d units, about %.0f s left", stage, finished + done, total, left)
            said = now
        yield item
