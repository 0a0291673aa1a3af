"""Samples as they lie in their tars -> the same samples as they lie in the output's, in the same memory.

Where all headers of a sample are ordinary (`inputs/tar_plain.py`), its output differs in nothing
but headers: each member's name becomes the new key, mode, owner and time become constants
(`inputs/tar_write.py`), and padding is zero. Sizes stay, so nothing has to move. Compiled code does
it (`relabel_compiled.py`) and leaves the interpreter free. What needs more is left untouched and
named: long names, PAX headers, captions that are not UTF-8, JSON that does not parse.
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
class Texts:
    """N strings as bytes: string i is `data[bounds[i] : bounds[i + 1]]`."""

    data: Bytes
    bounds: NDArray[np.int32]

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> "Texts":
        """From a column of strings."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        array = array.cast(pa.string())
        if not len(array):
            return cls(np.zeros(0, np.uint8), np.zeros(1, np.int32))
        _, bounds, data = array.buffers()
        ends = np.frombuffer(bounds, np.int32)[array.offset : array.offset + len(array) + 1]
        return cls(np.frombuffer(data or b"", np.uint8), ends)

    def slice(self, first: int, last: int) -> "Texts":
        """Strings [first, last)."""
        return Texts(self.data, self.bounds[first : last + 1])


def relabel(block: memoryview, sizes: Positions, keys: Texts, names: Texts) -> list[int]:
    """Give samples their new keys where they lie.

    Args:
        block: S samples side by side, as their tars hold them; changed in place.
        sizes: int64 [S], bytes of each.
        keys: S keys that they must have.
        names: S keys that they get.

    Returns:
        Which samples, ascending, were left as they were, because it takes more than new headers, or
        because they are not what `keys` says.
    """
    from d2prune.output import relabel_compiled as compiled

    data = np.frombuffer(block, np.uint8)
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    members = np.empty((len(data) // BLOCK + 1, 5), np.int64)
    kinds = np.zeros(len(members), np.int64)
    firsts = np.zeros(len(sizes) + 1, np.int64)
    is_plain = compiled.inspect(
        data, bounds, keys.data, keys.bounds, names.data, names.bounds, members, kinds, firsts
    )
    special = np.flatnonzero(kinds[: firsts[-1]])
    samples = np.searchsorted(firsts, special, "right") - 1
    rows = members[special]
    for sample, kind, start, size in zip(
        samples.tolist(),
        kinds[special].tolist(),
        rows[:, _START].tolist(),
        rows[:, _SIZE].tolist(),
        strict=True,
    ):
        payload = bytes(block[start + BLOCK : start + BLOCK + size])
        if not (is_json(payload) if kind == compiled.JSON else _is_utf8(payload)):
            is_plain[sample] = False
    compiled.rewrite(data, is_plain, names.data, names.bounds, members, firsts, compiled.TEMPLATE)
    return np.flatnonzero(~is_plain).tolist()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
