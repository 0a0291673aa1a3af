"""The table of the coreset benchmark: one line per finished cell of any experiment, as csv.

It is small enough to be kept with the results, and holds what the files in `--out` of all sessions
found: cells in it are not computed again. Invariant: sorted, one line per cell, written atomically.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell
from d2prune import store
from d2prune.errors import UserError

COLUMNS = ("experiment", "method", "pruned", "seed", "kept", "accuracy")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table; none if the file does not exist.

    Raises:
        UserError: the file has other columns, or a value that is no number.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(
                f"--table {path}: found columns {reader.fieldnames}; expected {', '.join(COLUMNS)}"
            )
        try:
            return [
                {
                    **row,
                    "pruned": float(row["pruned"]),
                    "seed": int(row["seed"]),
                    "kept": int(row["kept"]),
                    "accuracy": float(row["accuracy"]),
                }
                for row in reader
            ]
        except (TypeError, ValueError) as error:
            raise UserError(f"--table {path}: line {reader.line_num}: {error}; expected numbers") from error


def add(path: Path, experiment: str, cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add finished cells of an experiment to a table and return the experiment's rows.

    A cell that the table already has stays unchanged.
    """
    rows = {_key(row): row for row in read(path)}
    before = len(rows)
    for cell in cells:
        row = {"experiment": experiment, **{name: cell[name] for name in COLUMNS[1:]}}
        rows.setdefault(_key(row), {**row, "accuracy": round(row["accuracy"], 4)})
    ordered = [rows[key] for key in sorted(rows)]
    if len(ordered) > before:
        sink = io.StringIO()
        writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "pruned": f"{row['pruned']:g}"} for row in ordered)
        store.write_bytes(str(path), sink.getvalue().encode())
    return [row for row in ordered if row["experiment"] == experiment]


def finished(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the keys of the cells in these rows."""
    return {Cell(row["method"], row["pruned"], row["seed"]).key for row in rows}


def _key(row: Mapping[str, Any]) -> tuple[str, str, float, int]:
    return row["experiment"], row["method"], row["pruned"], row["seed"]
