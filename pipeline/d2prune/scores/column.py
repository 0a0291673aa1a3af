"""Difficulty from stored columns: read a column or an expression, shift it, clamp it at 0."""

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from d2prune.errors import UserError
from d2prune.parts.files import PAIR_SCORES, SAMPLES
from d2prune.parts.reader import Parts
from d2prune.scores import expression
from d2prune.store import schemas

# Numeric columns that are no scores: the location of a sample in its tar.
_NOT_SCORES = ("offset", "size")


def read_score(parts: Parts, numbers: Sequence[int], name: str, option: str) -> npt.NDArray[np.float32]:
    """Read a score of every sample of some parts, in canonical order.

    Args:
        parts: the pool, with the units of embed, and of rescore if the score uses its columns.
        numbers: of the parts to read.
        name: a column, or an expression over columns (`expression.parse`), computed in float64. An
            exact column name takes precedence, so a column called `a-b` is read as a column.
        option: name of the option, for error messages.

    Returns:
        float32 [N], all finite; higher = more wanted.

    Raises:
        UserError: a column does not exist or is not numeric, or a value is not finite.
    """
    scores = []
    for part in numbers:
        score_M = _read_part(parts, part, name, option)
        bad = np.flatnonzero(~np.isfinite(score_M))
        if bad.size:
            key = parts.receipt(part, SAMPLES).key
            raise UserError(
                f"{option}: {name} is {score_M[bad[0]]} in row {bad[0]} of {key}, expected a finite number"
            )
        scores.append(score_M)
    return np.concatenate(scores)


def _read_part(parts: Parts, part: int, name: str, option: str) -> npt.NDArray[np.float32]:
    column = _read_columns(parts, part, [name])
    if column is not None:
        return _to_numbers(column[name], name, option).astype(np.float32)
    parsed = expression.parse(name, option)
    columns = _read_columns(parts, part, parsed.columns)
    if columns is None:
        raise UserError(f"{option}: {_describe_missing(parts, part, parsed)}")
    values = {column: _to_numbers(columns[column], column, option) for column in parsed.columns}
    with np.errstate(over="ignore"):
        return parsed.evaluate(values, len(columns)).astype(np.float32)


def _read_columns(parts: Parts, part: int, names: Sequence[str]) -> pa.Table | None:
    """Read columns of a part; None if one of them does not exist."""
    rescored = [name for name in names if name in schemas.PAIR_SCORES and parts.units("rescore")]
    own = [name for name in names if name not in rescored]
    try:
        # At least one column, for the number of rows.
        found = parts.read(part, SAMPLES, own or ["uid"])
        for name in rescored:
            found = found.append_column(name, parts.read(part, PAIR_SCORES, [name])[name])
        return found.select(list(names))
    except (KeyError, pa.ArrowInvalid):
        return None


def _to_numbers(column: pa.ChunkedArray, name: str, option: str) -> npt.NDArray[np.generic]:
    """Return a numeric column as an array."""
    if not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
        raise UserError(f"{option}: column {name!r} is {column.type}, expected a number")
    numbers: npt.NDArray[np.generic] = column.to_numpy()
    return numbers


def _describe_missing(parts: Parts, part: int, parsed: expression.Expression) -> str:
    """Describe the first column that does not exist, with the nearest known name."""
    schema = parts.read(part, SAMPLES).schema
    name = next(column for column in parsed.columns if column not in schema.names)
    known = [
        field.name
        for field in schema
        if (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
        and field.name not in _NOT_SCORES
    ]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    context = "" if parsed.text == name else f" in {parsed.text!r}"
    hint = f"did you mean {close[0]}? " if close else ""
    return (
        f"there is no score {name!r}{context}; {hint}"
        f"expected one of {', '.join(known)}, or a number field of embed.fields"
    )


def shift(score_N: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float32]:
    """Convert a score to a difficulty: max(score + offset, 0), computed in float64.

    Args:
        score_N: float32 [N], finite; higher = more wanted.
        offset: in units of the score. The code released with the paper adds 0.115 to CLIP scores.

    Returns:
        float32 [N], >= 0; higher = more wanted.
    """
    return np.maximum(score_N.astype(np.float64) + offset, 0.0).astype(np.float32)


def add_offset(score_N: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float32]:
    """Return score + offset, which `shift` clamps at 0; float32 [N], computed in float64."""
    return (score_N.astype(np.float64) + offset).astype(np.float32)


def order_keys(score_N: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return int64 [N] in the order of finite scores, from -2**31 to 2**31 - 1."""
    # Adding 0.0 turns -0.0 into 0.0.
    bits = (score_N + np.float32(0.0)).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
