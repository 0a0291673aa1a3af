"""The ordinary stretch of a tar in memory, header after header as compiled code: where members lie, and their names.

Reads bytes, gives one row per member, up to the first header that is not quite ordinary (long
names, PAX, links, directories, names that are not ASCII or that no sample has, a wrong checksum, an
end mark). Those are left to `tar_walk`, which takes 20 times as long a header. Invariant: what is
said here is what `tar_walk` would say.

Imported where a tar is read and not before: numba takes longer to load than a small tar takes to read.
"""

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

Rows = NDArray[np.int64]
START, SIZE, KEY_END, NAME_END, IS_FIRST = range(5)
"""Columns: byte of the header; of payload; where key and name end, counted from the header; 1 where a sample begins."""


def members(data: memoryview | bytes, position: int, largest: int, most: int) -> Rows:
    """Members from `position` on, at most `most`; the next header would lie behind the last one's padded payload.

    Args:
        data: the tar.
        position: of the first header.
        largest: payloads above are not ordinary.
        most: rows at most.

    Returns:
        int64 [M, 5], see the columns. A sample ends where the key changes, or an extension comes again.
    """
    out = np.empty((most, 5), np.int64)
    return out[: scan(np.frombuffer(data, np.uint8), position, largest, out)]


@kernel
def _octal(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Digits, then NULs and spaces; -1 for anything else."""
    value, i = 0, start
    while i < stop and 48 <= data[i] < 56:
        value = value * 8 + (data[i] - 48)
        i += 1
    if i == start:
        return -1
    while i < stop:
        if data[i] != 0 and data[i] != 32:
            return -1
        i += 1
    return value


@kernel
def _lower(byte: int) -> int:
    return byte + 32 if 65 <= byte <= 90 else byte


@kernel
def scan(data: NDArray[np.uint8], position: int, largest: int, out: Rows) -> int:
    """`members` for compiled callers: fills `out` [M, 5], gives the number of rows.

    numba caches by the caller's file: after a change here, touch `tar_index.py` and `rename_kernels.py`.
    """
    end, count, first = len(data), 0, 0
    while count < out.shape[0] and position + 512 <= end:
        at = position
        # An ordinary file, without a prefix that belongs to its name.
        if data[at + 156] != 48 or (data[at + 345] != 0 and data[at + 262] == 0):
            return count
        size, checksum = _octal(data, at + 124, at + 136), _octal(data, at + 148, at + 156)
        if size < 0 or size > largest or at + 512 + size > end:
            return count
        total = 8 * 32
        for i in range(at, at + 148):
            total += data[i]
        for i in range(at + 156, at + 512):
            total += data[i]
        if total != checksum:
            return count
        length, cut, dot = 0, 0, -1
        while length < 100 and data[at + length] != 0:
            byte = data[at + length]
            if byte >= 128:
                return count
            if byte == 47:
                cut, dot = length + 1, -1
            elif byte == 46 and dot < 0:
                dot = length
            length += 1
        if dot <= cut or (data[at] == 95 and data[at + 1] == 95):
            return count
        is_first = count == 0
        if not is_first:
            before = out[count - 1, 0]
            is_first = out[count - 1, 2] != dot
            i = 0
            while not is_first and i < dot:
                is_first = data[before + i] != data[at + i]
                i += 1
            member = first
            while not is_first and member < count:
                is_first = out[member, 3] == length
                i = dot
                while is_first and i < length:
                    is_first = _lower(data[out[member, 0] + i]) == _lower(data[at + i])
                    i += 1
                member += 1
        if is_first:
            first = count
        out[count, 0], out[count, 1], out[count, 2], out[count, 3], out[count, 4] = (
            at,
            size,
            dot,
            length,
            is_first,
        )
        count += 1
        position = at + 512 + (size + 511) // 512 * 512
    return count
