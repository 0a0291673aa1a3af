"""Headers of `.npy` files, which numpy parses as Python literals, in one thread at a time.

CPython 3.11 counts the depth of a syntax tree per interpreter. If threads build trees at the same
time, one of them can fail with "AST constructor recursion depth mismatch" on a good header. It happened
once in some ten thousand headers read by eight threads.
"""

import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LOCK = threading.Lock()
"""Hold it to call numpy's readers of headers in a process with threads."""


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the content of an `.npy` file."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def load_array(data: bytes) -> NDArray[Any]:
    """Return the array in the bytes of an `.npy` file; objects are refused.

    Raises:
        ValueError: the bytes are not an array.
    """
    with HEADER_LOCK:
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
