"""Samples as they lie in their tars -> the same samples as they lie in the output's, in the same memory.

Where all headers of a sample are ordinary (`inputs/tar_plain.py`), its output differs in nothing but headers: each
member's name becomes the new key, mode, owner and time become constants (`inputs/tar_write.py`), and padding is zero.
Sizes stay, so nothing has to move. That is done here as compiled code, which leaves the interpreter free. Samples that
need more are left untouched and named: long names, PAX headers, captions that are not UTF-8, JSON that does not parse.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline.inputs.tar_header import BLOCK
from pipeline.inputs.tar_plain import scan
from pipeline.inputs.tar_write import member_header
from pipeline.output.tar_stream import is_json

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_START, _SIZE, _KEY_END, _NAME_END = range(4)
_JSON, _CAPTION = 1, 2
_NAME, _SIZE_FIELD, _CHECKSUM = 100, 124, 148
_TEMPLATE = np.frombuffer(member_header("x", 0), np.uint8)
# Name, size and checksum are filled in: the sum of the rest, with the checksum's field as spaces.
_REST = int(_TEMPLATE.sum()) - ord("x") - 11 * ord("0") - int(_TEMPLATE[_CHECKSUM : _CHECKSUM + 8].sum()) + 8 * 32


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
        Which samples, ascending, were left as they were, because it takes more than new headers, or because they are
        not what `keys` says.
    """
    data = np.frombuffer(block, np.uint8)
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    members = np.empty((len(data) // BLOCK + 1, 5), np.int64)
    kinds = np.zeros(len(members), np.int64)
    firsts = np.zeros(len(sizes) + 1, np.int64)
    is_plain = _inspect(data, bounds, keys.data, keys.bounds, names.data, names.bounds, members, kinds, firsts)
    special = np.flatnonzero(kinds[: firsts[-1]])
    samples = np.searchsorted(firsts, special, "right") - 1
    rows = members[special]
    for sample, kind, start, size in zip(
        samples.tolist(), kinds[special].tolist(), rows[:, _START].tolist(), rows[:, _SIZE].tolist(), strict=True
    ):
        payload = bytes(block[start + BLOCK : start + BLOCK + size])
        if not (is_json(payload) if kind == _JSON else _is_utf8(payload)):
            is_plain[sample] = False
    _rewrite(data, is_plain, names.data, names.bounds, members, firsts, _TEMPLATE)
    return np.flatnonzero(~is_plain).tolist()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _is_extension(data: Bytes, start: int, stop: int, wanted: Bytes) -> bool:
    if stop - start != len(wanted):
        return False
    for i in range(len(wanted)):
        byte = data[start + i]
        if (byte + 32 if 65 <= byte <= 90 else byte) != wanted[i]:
            return False
    return True


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _inspect(
    data: Bytes,
    bounds: Positions,
    keys: Bytes,
    key_bounds: Any,
    names: Bytes,
    name_bounds: Any,
    members: Positions,
    kinds: Positions,
    firsts: Positions,
) -> Any:
    """Which samples are plain; their members are [firsts[s], firsts[s + 1]), with starts counted from the block."""
    count = 0
    is_plain = np.zeros(len(bounds) - 1, np.bool_)
    json, caption = np.array([106, 115, 111, 110], np.uint8), np.array([116, 120, 116], np.uint8)
    for s in range(len(bounds) - 1):
        start, stop = bounds[s], bounds[s + 1]
        found = scan(data[start:stop], 0, stop - start, members[count:])
        firsts[s + 1] = count
        if found == 0:
            continue
        at, size = members[count + found - 1, 0], members[count + found - 1, 1]
        if at + 512 + (size + 511) // 512 * 512 != stop - start:
            continue
        key_size = key_bounds[s + 1] - key_bounds[s]
        plain = members[count, 2] == key_size
        i = 0
        while plain and i < key_size:
            plain = data[start + i] == keys[key_bounds[s] + i]
            i += 1
        name_size = name_bounds[s + 1] - name_bounds[s]
        plain = plain and name_size > 0
        for i in range(name_bounds[s], name_bounds[s + 1]):
            plain = plain and 0 < names[i] < 128
        for row in range(count, count + found):
            members[row, 0] += start
            at, size, dot, end = members[row, 0], members[row, 1], members[row, 2], members[row, 3]
            plain = plain and name_size + end - dot <= 100
            kinds[row] = 0
            if _is_extension(data, at + dot + 1, at + end, json):
                kinds[row] = 1
            elif _is_extension(data, at + dot + 1, at + end, caption):
                high = np.uint8(0)
                for i in range(at + 512, at + 512 + size):
                    high |= data[i]
                kinds[row] = 2 if high >= 128 else 0
        if plain:
            is_plain[s] = True
            count += found
            firsts[s + 1] = count
        else:
            kinds[count : count + found] = 0
    return is_plain


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _rewrite(
    data: Bytes,
    is_plain: Any,
    names: Bytes,
    name_bounds: Any,
    members: Positions,
    firsts: Positions,
    template: Bytes,
) -> None:
    """New headers and zero padding for the plain samples."""
    extension = np.empty(100, np.uint8)
    for s in range(len(is_plain)):
        if not is_plain[s]:
            continue
        low, high = name_bounds[s], name_bounds[s + 1]
        for row in range(firsts[s], firsts[s + 1]):
            at, size, dot, end = members[row, 0], members[row, 1], members[row, 2], members[row, 3]
            for i in range(end - dot):
                byte = data[at + dot + i]
                extension[i] = byte + 32 if 65 <= byte <= 90 else byte
            data[at : at + 512] = template
            total, position = _REST, at
            for i in range(low, high):
                data[position] = names[i]
                total += names[i]
                position += 1
            for i in range(end - dot):
                data[position] = extension[i]
                total += extension[i]
                position += 1
            left = size
            for i in range(10, -1, -1):
                digit = 48 + left % 8
                data[at + _SIZE_FIELD + i] = digit
                total += digit
                left //= 8
            for i in range(5, -1, -1):
                data[at + _CHECKSUM + i] = 48 + total % 8
                total //= 8
            position = at + 512 + size
            data[position : at + 512 + (size + 511) // 512 * 512] = 0
