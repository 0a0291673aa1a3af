"""Arguments of library functions as numpy arrays and Python numbers.

Takes what holds numbers or labels: numpy arrays of any order and byte order, torch tensors of any
dtype and device, frames and series of pandas and polars, pyarrow arrays and tables, lists. Memory is
shared where the dtype and the library allow it. Values are not checked here beyond what the
conversion needs; `DegenerateEmbeddingError` and the callers name wrong rows. Anything else is an
`ArgumentError`: one line with the argument, what was found and what was expected.
"""

from __future__ import annotations

import contextlib
import decimal
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.errors import ArgumentError

_NUMPY_FLOATS = ("float16", "float32", "float64")
_ARRAYS = "a numpy array, a torch tensor, a pandas or polars frame or series, a pyarrow array, or a list"


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Return an array-like as a numpy array in native byte order; memory is shared if possible.

    Raises:
        ArgumentError: it is not an array, has masked values, or holds rows of different lengths.
    """
    try:
        array = _convert(values)
        if array.dtype == object and array.ndim == 1 and len(array) and _holds_rows(array):
            array = np.stack([_convert(row) for row in array])
    except (ArgumentError, MemoryError):
        raise
    except Exception as error:  # each library has its own types
        detail = " ".join(str(error).split())[:120]
        raise ArgumentError(f"{name}: found {_describe(values)} ({detail}); expected {_ARRAYS}") from error
    if array.dtype == object and array.ndim == 0:
        raise ArgumentError(f"{name}: found {_describe(values)}; expected {_ARRAYS}")
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        count = int(np.ma.getmaskarray(values).sum())
        raise ArgumentError(f"{name}: found {count} masked values; expected none: fill or remove them")
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        return array.astype(np.float32)  # bfloat16 and float8 of ml_dtypes, which jax uses
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_rows(values: Any, name: str = "embeddings") -> NDArray[np.floating[Any]]:
    """Return embeddings as floats [N, D], both at least 1. Integers become floats that hold them.

    Raises:
        ArgumentError: not a matrix of numbers, or an empty one.
    """
    rows_ND = _to_numbers(as_array(values, name), name)
    if rows_ND.ndim != 2 or rows_ND.shape[1] == 0 or rows_ND.dtype.kind not in "fiu":
        raise ArgumentError(
            f"{name}: found {rows_ND.dtype} {rows_ND.shape}; expected floats [N, D] with D >= 1"
        )
    if len(rows_ND) == 0:
        raise ArgumentError(f"{name}: found 0 rows; expected at least 1")
    if rows_ND.dtype.kind != "f":
        return rows_ND.astype(np.float32 if rows_ND.dtype.itemsize <= 2 else np.float64)
    return rows_ND


def as_scores(values: Any, name: str, n: int | None = None) -> NDArray[Any]:
    """Return real numbers [N]; None and missing values become NaN.

    Args:
        values: array-like.
        name: of the argument.
        n: expected length.

    Raises:
        ArgumentError: not numbers, or of another shape.
    """
    score_N = _to_numbers(as_array(values, name), name)
    fits = score_N.ndim == 1 and (n is None or len(score_N) == n)
    if not fits or score_N.dtype.kind not in "fiub":
        wanted = "[N]" if n is None else f"({n},), one per embedding"
        raise ArgumentError(f"{name}: found {score_N.dtype} {score_N.shape}; expected real numbers {wanted}")
    return score_N


def as_finite_scores(values: Any, name: str, n: int | None = None) -> NDArray[Any]:
    """Return real numbers [N] as `as_scores` does, all finite.

    Raises:
        ArgumentError: also for NaN, infinite and missing values; names the first.
    """
    score_N = as_scores(values, name, n)
    finite = np.isfinite(score_N)
    if not finite.all():
        i = int(np.argmin(finite))
        raise ArgumentError(f"{name}[{i}]: found {score_N[i]}; expected a finite number")
    return score_N


def as_labels(values: Any, name: str, n: int | None = None) -> NDArray[np.int64]:
    """Return labels as group numbers, int64 [N].

    Labels may be of any type that can be compared for equality, also of several types; 1, 1.0 and
    True are one label. Missing ones (None, NaN, NaT, pandas.NA) are one more group.

    Args:
        values: array-like of labels.
        name: of the argument.
        n: expected length.

    Returns:
        int64 [N]: numbers in the order of the sorted labels; of labels that have no order, in that of
        their first appearance; the missing ones last.

    Raises:
        ArgumentError: another length, or a label that cannot be compared.
    """
    if isinstance(values, list | tuple):
        # Not np.asarray, which would turn [1, "1"] into two equal strings.
        items = (item.item() if hasattr(item, "detach") else item for item in values)
        label_N: NDArray[Any] = np.fromiter(items, dtype=object, count=len(values))
    else:
        label_N = as_array(values, name)
    if label_N.ndim != 1:
        raise ArgumentError(f"{name}: found {label_N.dtype} {label_N.shape}; expected labels [N]")
    if n is not None and len(label_N) != n:
        raise ArgumentError(f"{name}: found {len(label_N)} labels; expected {n}, one per sample")
    if label_N.dtype != object:
        return np.unique(label_N, return_inverse=True)[1].astype(np.int64)
    missing_N = np.fromiter(map(_is_missing, label_N), np.bool_, len(label_N))
    group_N = np.empty(len(label_N), np.int64)
    group_N[~missing_N], count = _number_objects(label_N[~missing_N], name)
    group_N[missing_N] = count
    return group_N


def _number_objects(label_M: NDArray[Any], name: str) -> tuple[NDArray[np.int64], int]:
    """Return the group number of each label, and the number of groups."""
    try:
        found: dict[Any, int] = {}
        numbers = (found.setdefault(item, len(found)) for item in label_M)
        group_M = np.fromiter(numbers, np.int64, len(label_M))
    except TypeError as error:
        raise ArgumentError(f"{name}: found an {error}; expected labels such as text or numbers") from error
    try:
        order = sorted(range(len(found)), key=list(found).__getitem__)
    except TypeError:
        return group_M, len(found)
    number_G = np.empty(len(found), np.int64)
    number_G[order] = np.arange(len(found))
    return number_G[group_M], len(found)


def as_number(value: Any, name: str, expected: str, valid: Callable[[float], bool]) -> float:
    """Return a real number as a float; also that of an array without dimensions.

    Args:
        value: the argument.
        name: of the argument.
        expected: the valid numbers, for the message.
        valid: whether a float is one of them.

    Raises:
        ArgumentError: it is not a number, or not a valid one.
    """
    number = _unwrap(value)
    if isinstance(number, Real) and not isinstance(number, bool | np.bool_):
        try:
            if valid(float(number)):
                return float(number)
        except OverflowError:
            pass
    raise ArgumentError(f"{name}: found {describe_value(number)}; expected {expected}")


def as_whole(value: Any, name: str, low: int, high: int = 2**63 - 1) -> int:
    """Return a whole number from `low` to `high`.

    Raises:
        ArgumentError: it is none, or out of range.
    """
    value = _unwrap(value)
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if not whole or not low <= int(value) <= high:
        bounds = f"at least {low}" if high == 2**63 - 1 else f"{low} to {high}"
        raise ArgumentError(f"{name}: found {describe_value(value)}; expected a whole number, {bounds}")
    return int(value)


def _unwrap(value: Any) -> Any:
    """Return the only value of a numpy array or torch tensor without dimensions; others unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def describe_value(value: Any) -> str:
    """Return a value as short text."""
    if isinstance(value, str | float | int | None):
        try:
            text = repr(value)
        except ValueError:
            text = "a number of many digits"  # Python refuses to convert more than 4,300
        return text if len(text) <= 60 else f"{text[:60]}..."
    return _describe(value)


def _describe(values: Any) -> str:
    """Return type and shape."""
    words = [type(values).__name__]
    with contextlib.suppress(Exception):  # nested tensors raise an error when asked
        words += [str(values.dtype), str(tuple(values.shape))]
    return " ".join(words)


def _convert(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    if hasattr(values, "detach"):
        return _convert_tensor(values)
    if type(values).__module__.split(".")[0] == "pyarrow":
        if hasattr(values, "to_numpy"):
            return np.asarray(values.to_numpy(zero_copy_only=False))
        columns = [column.to_numpy(zero_copy_only=False) for column in _list_columns(values)]
        return np.column_stack(columns)
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    if isinstance(values, list | tuple) and any(hasattr(item, "detach") for item in values):
        return np.asarray([_convert(item) for item in values])
    return np.asarray(values)


def _list_columns(table: Any) -> list[Any]:
    """Return the columns of a table or record batch of pyarrow."""
    return list(table.columns)


def _convert_tensor(tensor: Any) -> NDArray[Any]:
    """Convert a torch tensor; floats that numpy lacks (bfloat16, float8) to float32."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    tensor = tensor.cpu().resolve_conj().resolve_neg()
    if tensor.is_floating_point() and str(tensor.dtype).removeprefix("torch.") not in _NUMPY_FLOATS:
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def _holds_rows(array: NDArray[Any]) -> bool:
    """Whether an array of objects is a column of rows, as pandas and pyarrow store embeddings."""
    return all(isinstance(row, list | tuple | np.ndarray) or hasattr(row, "detach") for row in array)


def _to_numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Convert an array of Python objects to float64, missing ones to NaN; others unchanged."""
    if array.dtype != object:
        return array
    flat = [_to_float(value, name, position) for position, value in np.ndenumerate(array)]
    return np.asarray(flat, np.float64).reshape(array.shape)


def _to_float(value: Any, name: str, position: tuple[int, ...]) -> float:
    if isinstance(value, Real | decimal.Decimal):
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    if _is_missing(value):
        return float("nan")
    shown = ", ".join(map(str, position))
    raise ArgumentError(f"{name}[{shown}]: found {describe_value(value)}; expected a number")


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT or pandas.NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | decimal.Decimal | np.generic) and bool(value != value)
