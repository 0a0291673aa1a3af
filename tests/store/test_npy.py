"""Arrays are read correctly by many threads at a time."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from d2prune.store.npy import load_array


def npy(array):
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=True)
    return sink.getvalue()


def test_threads_read_headers_one_at_a_time():
    arrays = [np.arange(i, dtype=np.float32).reshape(-1, 1) for i in range(50)]
    files = [npy(array) for array in arrays]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(load_array, files * 4))
    finally:
        sys.setswitchinterval(before)
    assert all((array == arrays[i % 50]).all() for i, array in enumerate(found))


@pytest.mark.parametrize("data", [b"no array", b"\x93NUMPY\x01\x00\x02\x00{}", npy(np.array([{}], object))])
def test_what_is_no_array_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"\S"):
        load_array(data)
