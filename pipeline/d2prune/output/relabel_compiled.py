"""The compiled part of `relabel.py`: headers of a block of samples looked at, and written anew.

Imported where a tar is written and not before: numba takes longer to load than a small tar takes to write.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.inputs.tar.header_scan import scan_headers
from d2prune.inputs.tar.json_scan import UNSURE, find_uid
from d2prune.inputs.tar.write import member_header

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

JSON, CAPTION = 1, 2
"""Kinds of members that need another look: JSON that is not plain, and captions with bytes that are not ASCII."""

_SIZE_FIELD, _CHECKSUM = 124, 148
TEMPLATE = np.frombuffer(member_header("x", 0), np.uint8)
# Name, size and checksum are filled in: the sum of the rest, with the checksum's field as spaces.
_REST = (
    int(TEMPLATE.sum())
    - ord("x")
    - 11 * ord("0")
    - int(TEMPLATE[_CHECKSUM : _CHECKSUM + 8].sum())
    + 8 * ord(" ")
)


@kernel
def _is_extension(data: Bytes, start: int, stop: int, wanted: Bytes) -> bool:
    if stop - start != len(wanted):
        return False
    for i in range(len(wanted)):
        byte = data[start + i]
        if (byte + 32 if 65 <= byte <= 90 else byte) != wanted[i]:
            return False
    return True


@kernel
def inspect(
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
        found = scan_headers(data[start:stop], 0, stop - start, members[count:])
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
                kinds[row] = JSON if find_uid(data, at + 512, at + 512 + size) == UNSURE else 0
            elif _is_extension(data, at + dot + 1, at + end, caption):
                high = np.uint8(0)
                for i in range(at + 512, at + 512 + size):
                    high |= data[i]
                kinds[row] = CAPTION if high >= 128 else 0
        if plain:
            is_plain[s] = True
            count += found
            firsts[s + 1] = count
        else:
            kinds[count : count + found] = 0
    return is_plain


@kernel
def rewrite(
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
