"""Arrow columns to numpy arrays and back, without copies where the memory layout allows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def vectors(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of vectors as an array [N, D].

    Fixed-size binary holds float16; fixed-size lists keep their type.
    """
    if pa.types.is_fixed_size_binary(column.type):
        return np.concatenate(
            [_view_float16(chunk) for chunk in column.chunks] or [_view_float16(pa.array([], column.type))]
        )
    width = column.type.list_size
    if column.num_chunks == 0:
        return np.zeros((0, width), column.type.value_type.to_pandas_dtype())
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in column.chunks]
    )


def _view_float16(chunk: pa.FixedSizeBinaryArray) -> npt.NDArray[np.float16]:
    """The vectors of one chunk, as a view of its memory."""
    width = chunk.type.byte_width // 2
    # An array without rows may have no buffer.
    data = chunk.buffers()[1] or pa.py_buffer(b"")
    flat = np.frombuffer(data, "<f2", len(chunk) * width, 2 * chunk.offset * width)
    return flat.reshape(len(chunk), width)


def vector_column(rows_ND: npt.NDArray[Any]) -> pa.FixedSizeBinaryArray | pa.FixedSizeListArray:
    """An array [N, D] as a column of vectors.

    float16 becomes fixed-size binary, see `schemas.embeddings`; other types become lists.
    """
    if rows_ND.dtype == np.float16:
        data = pa.py_buffer(np.ascontiguousarray(rows_ND, "<f2"))
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2 * rows_ND.shape[1]), len(rows_ND), [None, data]
        )
    flat = pa.array(np.ascontiguousarray(rows_ND).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows_ND.shape[1])


def ragged(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column of lists, row after row."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks] or [np.zeros(0)])


def ragged_column(indptr: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.ListArray:
    """`values[indptr[i]:indptr[i + 1]]` as the list of row i; `indptr[0]` is 0."""
    return pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), pa.array(values))
