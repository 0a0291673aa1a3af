"""Compiled kernels of `rename_samples.py`: inspect the tar headers of a block of samples, and rewrite them.

Legend of the arrays: S samples, M members of all of them. `members` int64 [M, 5] has the columns of
`inputs/tar/header_scan.py`: byte of the header, bytes of payload, end of the key and of the name counted
from the header, 1 where a sample begins. Members of sample s are [firsts[s], firsts[s + 1]).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.inputs.tar.header_scan import scan_headers
from d2prune.inputs.tar.json_scan import UNSURE, find_uid
from d2prune.inputs.tar.write import member_header
from d2prune.output.executable import COMPRESSED, EXECUTABLE

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

JSON, CAPTION = 1, 2
"""Kinds of members the caller must check: JSON the kernel cannot judge, and captions with non-ASCII bytes."""

_SIZE_FIELD, _CHECKSUM = 124, 148
TEMPLATE = np.frombuffer(member_header("x", 0), np.uint8)
# The checksum of a header is the sum of its bytes, its own field counted as spaces. This is the sum
# without the name and the size, which differ between members.
_CONSTANT_SUM = (
    int(TEMPLATE.sum())
    - ord("x")
    - 11 * ord("0")
    - int(TEMPLATE[_CHECKSUM : _CHECKSUM + 8].sum())
    + 8 * ord(" ")
)

_NAMES = [name.encode() for name in (*COMPRESSED, *EXECUTABLE)]
SUSPECT_NAMES = np.frombuffer(b"".join(_NAMES), np.uint8)
SUSPECT_BOUNDS = np.cumsum([0, *map(len, _NAMES)])
"""Extensions of `executable.py`; name i is `SUSPECT_NAMES[SUSPECT_BOUNDS[i] : SUSPECT_BOUNDS[i + 1]]`."""


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
def _is_suspect(
    data: Bytes, start: int, stop: int, payload: int, end: int, names: Bytes, name_bounds: Positions
) -> bool:
    """Return whether `executable.is_executable` may be true of a member; it decides.

    Args:
        data: the block.
        start: first byte of the extension.
        stop: byte after the extension.
        payload: first byte of the payload.
        end: byte after the payload.
        names: see `SUSPECT_NAMES`.
        name_bounds: see `SUSPECT_BOUNDS`.
    """
    low = stop
    while low > start and data[low - 1] != 46:
        low -= 1
    for i in range(len(name_bounds) - 1):
        if _is_extension(data, low, stop, names[name_bounds[i] : name_bounds[i + 1]]):
            return True
    # The first bytes of `executable.PROGRAMS`.
    return payload < end and (data[payload] == 37 or data[payload] == 0xC5 or data[payload] == 0x1C)


@kernel
def find_plain_samples(
    data: Bytes,
    bounds: Positions,
    keys: Bytes,
    key_bounds: Any,
    new_keys: Bytes,
    new_key_bounds: Any,
    set_aside: bool,
    names: Bytes,
    name_bounds: Positions,
    members: Positions,
    kinds: Positions,
    firsts: Positions,
) -> Any:
    """Find the samples for which new headers are enough.

    Args:
        data: the block.
        bounds: [S + 1], sample s is `data[bounds[s] : bounds[s + 1]]`.
        keys: bytes of the expected keys.
        key_bounds: [S + 1], bounds of the expected keys in `keys`.
        new_keys: bytes of the new keys.
        new_key_bounds: [S + 1], bounds of the new keys in `new_keys`.
        set_aside: whether a sample with a member that a loader may execute is not plain.
        names: see `SUSPECT_NAMES`.
        name_bounds: see `SUSPECT_BOUNDS`.
        members: output; headers are counted from the start of the block.
        kinds: output [M], `JSON`, `CAPTION` or 0 (nothing to check).
        firsts: output [S + 1]; a sample that is not plain has no members.

    Returns:
        bool [S], True where the sample is plain if its members of a kind above 0 are valid.
    """
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
        new_key_size = new_key_bounds[s + 1] - new_key_bounds[s]
        plain = plain and new_key_size > 0
        for i in range(new_key_bounds[s], new_key_bounds[s + 1]):
            plain = plain and 0 < new_keys[i] < 128
        for row in range(count, count + found):
            members[row, 0] += start
            at, size, dot, end = members[row, 0], members[row, 1], members[row, 2], members[row, 3]
            plain = plain and new_key_size + end - dot <= 100
            kinds[row] = 0
            if _is_extension(data, at + dot + 1, at + end, json):
                kinds[row] = JSON if find_uid(data, at + 512, at + 512 + size) == UNSURE else 0
            elif _is_extension(data, at + dot + 1, at + end, caption):
                high = np.uint8(0)
                for i in range(at + 512, at + 512 + size):
                    high |= data[i]
                kinds[row] = CAPTION if high >= 128 else 0
            elif set_aside and _is_suspect(
                data, at + dot + 1, at + end, at + 512, at + 512 + size, names, name_bounds
            ):
                plain = False
        if plain:
            is_plain[s] = True
            count += found
            firsts[s + 1] = count
        else:
            kinds[count : count + found] = 0
    return is_plain


@kernel
def rewrite_headers(
    data: Bytes,
    is_plain: Any,
    new_keys: Bytes,
    new_key_bounds: Any,
    members: Positions,
    firsts: Positions,
    template: Bytes,
) -> None:
    """Write new headers and zero padding for the plain samples; `template` is a header to copy from."""
    extension = np.empty(100, np.uint8)
    for s in range(len(is_plain)):
        if not is_plain[s]:
            continue
        low, high = new_key_bounds[s], new_key_bounds[s + 1]
        for row in range(firsts[s], firsts[s + 1]):
            at, size, dot, end = members[row, 0], members[row, 1], members[row, 2], members[row, 3]
            for i in range(end - dot):
                byte = data[at + dot + i]
                extension[i] = byte + 32 if 65 <= byte <= 90 else byte
            data[at : at + 512] = template
            total, position = _CONSTANT_SUM, at
            for i in range(low, high):
                data[position] = new_keys[i]
                total += new_keys[i]
                position += 1
            for i in range(end - dot):
                data[position] = extension[i]
                total += extension[i]
                position += 1
            rest = size
            for i in range(10, -1, -1):
                digit = 48 + rest % 8
                data[at + _SIZE_FIELD + i] = digit
                total += digit
                rest //= 8
            for i in range(5, -1, -1):
                data[at + _CHECKSUM + i] = 48 + total % 8
                total //= 8
            position = at + 512 + size
            data[position : at + 512 + (size + 511) // 512 * 512] = 0
