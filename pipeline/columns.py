"""Arrow columns to numpy arrays and back, without copies where the memory allows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def vectors(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of fixed-size lists as an array [N, D]."""
    width = column.type.list_size
    if column.num_chunks == 0:
        return np.zeros((0, width), column.type.value_type.to_pandas_dtype())
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in column.chunks]
    )


def vector_column(rows_ND: npt.NDArray[Any]) -> pa.FixedSizeListArray:
    """An array [N, D] as a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(rows_ND).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows_ND.shape[1])


def ragged(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column of lists, one row after the other."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks] or [np.zeros(0)])


def ragged_column(indptr: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.ListArray:
    """`values[indptr[i]:indptr[i + 1]]` as the list of row i; `indptr[0]` is 0."""
    return pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), pa.array(values))
