"""Compiled scan of ordinary tar headers: where the members of a tar in memory are, and where samples begin.

Returns one row per member, up to the first header that is not ordinary: long names, PAX, links,
directories, names that are not ASCII or not part of a sample, a wrong checksum, the end mark. The
walker (`walk.py`) handles those; it takes 20 times as long per header. Invariant: for the rows
returned, the walker would return the same members.

Import this module only where a tar is read: loading numba takes longer than reading a small tar.
"""

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

Rows = NDArray[np.int64]
START, SIZE, KEY_END, NAME_END, IS_FIRST = range(5)
"""Columns: byte of the header; bytes of payload; ends of key and name, counted from the header; 1 where a
sample begins."""


def scan_members(data: memoryview | bytes, position: int, max_member_bytes: int, max_rows: int) -> Rows:
    """Scan members from `position` on.

    Args:
        data: the tar.
        position: byte of the first header.
        max_member_bytes: a larger payload is not ordinary and ends the scan.
        max_rows: members to return at most.

    Returns:
        int64 [M, 5], see the columns. The header after the last row would follow its padded payload.
        A sample ends where the key changes or an extension is repeated.
    """
    out = np.empty((max_rows, 5), np.int64)
    return out[: scan_headers(np.frombuffer(data, np.uint8), position, max_member_bytes, out)]


@kernel
def _octal(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Parse octal digits followed by NULs and spaces; -1 for anything else."""
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
def scan_headers(data: NDArray[np.uint8], position: int, max_member_bytes: int, out: Rows) -> int:
    """Fill `out` [M, 5] as `scan_members` does and return the number of rows; for compiled callers."""
    end, count, first = len(data), 0, 0
    while count < out.shape[0] and position + 512 <= end:
        at = position
        # Only a regular file whose name has no ustar prefix is ordinary.
        if data[at + 156] != 48 or (data[at + 345] != 0 and data[at + 262] == 0):
            return count
        size, checksum = _octal(data, at + 124, at + 136), _octal(data, at + 148, at + 156)
        if size < 0 or size > max_member_bytes or at + 512 + size > end:
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
