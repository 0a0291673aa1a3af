"""Resumable benchmarks: a grid of cells, each computed once and kept as one small file under `OUT/cells`.

A program may be ended at any time and goes on where it was. Invariant: a cell's file is written
last, in one piece, and a folder holds the cells of one `settings.json` only.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, Resources


@dataclass(frozen=True)
class Cell:
    """One figure: a method at one share pruned with one seed; pruned 0 is the model trained on everything."""

    method: str
    pruned: float
    seed: int

    @property
    def key(self) -> str:
        """Name of its file."""
        return f"{self.method.replace(':', '-').replace(' ', '-')}-{self.pruned:g}-{self.seed}"


def claim(out: Path, settings: Any) -> None:
    """Take an empty folder, or one with the same settings.

    Raises:
        UserError: the folder holds figures of other settings.
    """
    path, text = out / "settings.json", json.dumps(dataclasses.asdict(settings), indent=1)
    if path.exists() and path.read_text() != text:
        raise UserError(
            f"--out {out} holds figures of other settings (see settings.json there); name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def keep(out: Path, cell: Cell, figures: dict[str, Any]) -> str:
    """Write a cell's file; returns its key."""
    row = {**dataclasses.asdict(cell), **figures}
    store.write_bytes(str(out / "cells" / f"{cell.key}.json"), json.dumps(row).encode())
    return cell.key


def kept(out: Path) -> list[dict[str, Any]]:
    """What all finished cells hold, by name of file."""
    return [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]


def compute(
    make_worker: Callable[[], Callable[[Cell], str]], out: Path, stages: Sequence[Sequence[Cell]],
    executor: Executor, workers: int = 1, seconds: float | None = None,
) -> bool:  # fmt: skip
    """Compute the cells that have no file yet, stage after stage.

    Args:
        make_worker: for each process; what it makes computes a cell, `keep`s it and returns its key.
        out: the folder.
        stages: cells of one stage may be computed side by side.
        executor: where.
        workers: how many at once.
        seconds: start no new cells after this long.

    Returns:
        True when all are done.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    for cells in stages:
        todo = [cell for cell in cells if not (out / "cells" / f"{cell.key}.json").exists()]
        # In bites where a clock is to be looked at between them.
        bite = 8 * workers if seconds is not None else max(1, len(todo))
        for start in range(0, len(todo), bite):
            if deadline is not None and time.monotonic() > deadline:
                return False
            for key in executor.map(make_worker, todo[start : start + bite], Resources(workers)):
                print(key, flush=True)
    return True
