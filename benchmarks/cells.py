"""Resumable benchmarks: a grid of cells, each computed once and stored in a file in `OUT/cells`.

Used by `benchmarks.coreset`, which may be killed at any time; the same command resumes it.
Invariants: the file of a cell is written last and atomically; a folder holds the cells of a single
`settings.json`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.execution import Executor, Resources


@dataclass(frozen=True)
class Cell:
    """One measurement: method, share pruned (0 for a model trained on all data), and seed."""

    method: str
    pruned: float
    seed: int

    @property
    def key(self) -> str:
        """Name of the cell's file, without the extension."""
        return f"{re.sub('[: /]', '-', self.method)}-{self.pruned:g}-{self.seed}"


def claim(out: Path, settings: Any) -> None:
    """Create the folder, or accept an existing one that was made with the same settings.

    Raises:
        UserError: the folder holds results of other settings.
    """
    path, text = out / "settings.json", json.dumps(dataclasses.asdict(settings), indent=1)
    if path.exists() and path.read_text() != text:
        raise UserError(
            f"--out {out}: found results of other settings (see settings.json there); expected a new folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def keep(out: Path, cell: Cell, figures: dict[str, Any]) -> str:
    """Write the file of a cell and return the cell's key."""
    row = {**dataclasses.asdict(cell), **figures}
    store.write_bytes(str(out / "cells" / f"{cell.key}.json"), json.dumps(row).encode())
    return cell.key


def read_all(out: Path) -> list[dict[str, Any]]:
    """Return the rows of all finished cells, sorted by file name."""
    return [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]


def compute(
    make_worker: Callable[[], Callable[[Cell], str]], out: Path, stages: Sequence[Sequence[Cell]],
    executor: Executor, workers: int = 1, seconds: float | None = None, done: Container[str] = (),
) -> bool:  # fmt: skip
    """Compute the cells that have no file yet, one stage after the other.

    Args:
        make_worker: called once per process; the worker it returns computes a cell, calls `keep`
            and returns the key.
        out: the folder of `claim`.
        stages: groups of cells; cells of one group may be computed in parallel.
        executor: runs the workers.
        workers: number of parallel workers.
        seconds: time limit after which no new cells are started.
        done: keys of cells that need no file, because another folder had them.

    Returns:
        Whether all cells are finished.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    for cells in stages:
        todo = [
            cell
            for cell in cells
            if cell.key not in done and not (out / "cells" / f"{cell.key}.json").exists()
        ]
        # The time limit is checked between batches.
        batch = 8 * workers if seconds is not None else max(1, len(todo))
        for start in range(0, len(todo), batch):
            if deadline is not None and time.monotonic() > deadline:
                return False
            for key in executor.map(make_worker, todo[start : start + batch], Resources(workers)):
                print(key, flush=True)
    return True
