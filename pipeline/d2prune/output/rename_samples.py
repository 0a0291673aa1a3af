"""Give samples their new keys in place, inside the block of memory they were read into.

Where all tar headers of a sample are ordinary (`inputs/tar/header_scan.py`), the sample in the output
differs from its source in headers and padding only: each member's name gets the new key; mode,
owner and time become constants (`inputs/tar/write.py`); padding becomes zero. Sizes stay the same,
so no byte has to move. Compiled code (`rename_kernels.py`) does this without holding the
interpreter lock. Samples that need more are left unchanged and reported: long names, PAX headers,
captions that are not UTF-8, JSON that does not parse, members that a loader may execute.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from d2prune.inputs.tar.header import BLOCK
from d2prune.output.tar_stream import is_json

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_START, _SIZE = range(2)


@dataclass(frozen=True)
class Strings:
    """N strings as bytes: string i is `data[bounds[i] : bounds[i + 1]]`."""

    data: Bytes
    bounds: NDArray[np.int32]

    @classmethod
    def from_column(cls, column: pa.ChunkedArray | pa.Array) -> "Strings":
        """Build from an Arrow column of strings."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        array = array.cast(pa.string())
        if not len(array):
            return cls(np.zeros(0, np.uint8), np.zeros(1, np.int32))
        _, bounds, text = array.buffers()
        ends = np.frombuffer(bounds, np.int32)[array.offset : array.offset + len(array) + 1]
        data = np.frombuffer(text or b"", np.uint8)
        # Some of Arrow's buffers are writable, and for those the kernels would be compiled once more.
        data.flags.writeable = ends.flags.writeable = False
        return cls(data, ends)

    def slice(self, first: int, last: int) -> "Strings":
        """Strings [first, last)."""
        return Strings(self.data, self.bounds[first : last + 1])


def rename_in_place(
    block: memoryview, sizes: Positions, keys: Strings, new_keys: Strings, keep_executable: bool = False
) -> list[int]:
    """Rewrite the headers of S samples with their new keys.

    Args:
        block: the samples side by side, with the bytes of their source tars; changed in place.
        sizes: int64 [S], bytes of each sample.
        keys: S keys the samples are expected to have.
        new_keys: S keys to give them.
        keep_executable: whether members that a loader would execute keep their names.

    Returns:
        Indices, ascending, of the samples that were left unchanged: new headers are not enough for
        them, or their key is not the expected one.
    """
    # numba takes longer to load than a small tar takes to write, so only writers import the kernels.
    from d2prune.output import rename_kernels as kernels

    data = np.frombuffer(block, np.uint8)
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    members = np.empty((len(data) // BLOCK + 1, 5), np.int64)
    kinds = np.zeros(len(members), np.int64)
    firsts = np.zeros(len(sizes) + 1, np.int64)
    is_plain = kernels.find_plain_samples(
        data,
        bounds,
        keys.data,
        keys.bounds,
        new_keys.data,
        new_keys.bounds,
        not keep_executable,
        kernels.SUSPECT_NAMES,
        kernels.SUSPECT_BOUNDS,
        members,
        kinds,
        firsts,
    )
    undecided = np.flatnonzero(kinds[: firsts[-1]])
    samples = np.searchsorted(firsts, undecided, "right") - 1
    rows = members[undecided]
    for sample, kind, start, size in zip(
        samples.tolist(),
        kinds[undecided].tolist(),
        rows[:, _START].tolist(),
        rows[:, _SIZE].tolist(),
        strict=True,
    ):
        payload = bytes(block[start + BLOCK : start + BLOCK + size])
        if not (is_json(payload) if kind == kernels.JSON else _is_utf8(payload)):
            is_plain[sample] = False
    kernels.rewrite_headers(data, is_plain, new_keys.data, new_keys.bounds, members, firsts, kernels.TEMPLATE)
    return np.flatnonzero(~is_plain).tolist()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
