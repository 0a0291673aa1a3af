"""A stored score as difficulty: read a column or an expression over columns, shift it, clamp it at zero."""

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.errors import UserError
from d2prune.parts.files import SAMPLES
from d2prune.scores import expression
from d2prune.store import artifacts
from d2prune.store.artifacts import Receipt

# Numbers that say where a sample lies in its tar, not what it is worth.
_NOT_SCORES = ("offset", "size")


def read_score(
    embed_folder: str, parts: Sequence[Receipt], name: str, option: str
) -> npt.NDArray[np.float32]:
    """A score of every sample, float32 [N], in canonical order.

    Args:
        embed_folder: `work_dir/embed`.
        parts: its units.
        name: a column, or an expression over columns (`expression.parse`), computed in float64. A
            column's exact name comes first, so one that is called `a-b` is read as it is.
        option: what errors call it.

    Raises:
        UserError: the embed artifact has no such column, it is not numeric, or a value is not finite.
    """
    scores = []
    for receipt in parts:
        score_M = _read_part(embed_folder, receipt, name, option)
        bad = np.flatnonzero(~np.isfinite(score_M))
        if bad.size:
            raise UserError(
                f"{option}: {name} of row {bad[0]} in {receipt.key} is {score_M[bad[0]]}, expected a number"
            )
        scores.append(score_M)
    return np.concatenate(scores)


def _read_part(embed_folder: str, receipt: Receipt, name: str, option: str) -> npt.NDArray[np.float32]:
    column = _read_columns(embed_folder, receipt, [name])
    if column is not None:
        return _numbers(column[name], name, option).astype(np.float32)
    parsed = expression.parse(name, option)
    columns = _read_columns(embed_folder, receipt, parsed.columns)
    if columns is None:
        raise UserError(f"{option}: {_unknown(embed_folder, receipt, parsed)}")
    values = {column: _numbers(columns[column], column, option) for column in parsed.columns}
    with np.errstate(over="ignore"):
        return parsed.evaluate(values, len(columns)).astype(np.float32)


def _read_columns(embed_folder: str, receipt: Receipt, names: Sequence[str]) -> pa.Table | None:
    """The columns, None where one of them does not exist."""
    try:
        return artifacts.read_table(embed_folder, receipt, SAMPLES, names).select(list(names))
    except (KeyError, pa.ArrowInvalid):
        return None


def _numbers(column: pa.ChunkedArray, name: str, option: str) -> npt.NDArray[np.generic]:
    if not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
        raise UserError(f"{option}: {name!r} is {column.type}, expected a number")
    numbers: npt.NDArray[np.generic] = column.to_numpy()
    return numbers


def _unknown(embed_folder: str, receipt: Receipt, parsed: expression.Expression) -> str:
    """What to say of the first column that does not exist."""
    schema = artifacts.read_table(embed_folder, receipt, SAMPLES).schema
    name = next(column for column in parsed.columns if column not in schema.names)
    known = [
        field.name
        for field in schema
        if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
        and field.name not in _NOT_SCORES
    ]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    where = "" if parsed.text == name else f" (in {parsed.text!r})"
    hint = f"did you mean {close[0]}? " if close else ""
    return f"no score is called {name!r}{where}; {hint}known: {', '.join(known)}, and numbers of embed.fields"


def shift(score_N: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float32]:
    """The kernel's difficulty: `max(score + offset, 0)`, in float64, then float32.

    Args:
        score_N: a finite score, higher = more wanted.
        offset: what to add, in the score's unit. The released DataComp code adds 0.115 to CLIP scores.

    Returns:
        float32 [N], all >= 0.
    """
    return np.maximum(score_N.astype(np.float64) + offset, 0.0).astype(np.float32)
