"""Arrow columns to numpy arrays and back, without copies where the memory layout allows.

N rows, D dimensions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Float16 = npt.NDArray[np.float16]


def vectors(column: pa.ChunkedArray) -> Float16:
    """A column of vectors, see `schemas.embeddings`, as float16 [N, D]."""
    return np.concatenate(
        [_view_chunk(chunk) for chunk in column.chunks] or [_view_chunk(pa.array([], column.type))]
    )


def _view_chunk(chunk: pa.FixedSizeBinaryArray) -> Float16:
    """The vectors of one chunk, as a view of its memory."""
    width = chunk.type.byte_width // 2
    # An array without rows may have no buffer.
    data = chunk.buffers()[1] or pa.py_buffer(b"")
    flat = np.frombuffer(data, "<f2", len(chunk) * width, 2 * chunk.offset * width)
    return flat.reshape(len(chunk), width)


def vector_column(rows_ND: Float16) -> pa.FixedSizeBinaryArray:
    """float16 [N, D] as a column of vectors, see `schemas.embeddings`."""
    if rows_ND.dtype != np.float16:
        raise TypeError(f"vectors of {rows_ND.dtype}; expected float16")
    data = pa.py_buffer(np.ascontiguousarray(rows_ND, "<f2"))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * rows_ND.shape[1]), len(rows_ND), [None, data])


def ragged(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """The values of a column of lists, row after row."""
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks] or [np.zeros(0)])


def ragged_column(indptr: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> pa.ListArray:
    """`values[indptr[i]:indptr[i + 1]]` as the list of row i; `indptr[0]` is 0."""
    return pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), pa.array(values))
