"""Plain JSON objects in memory, checked as compiled code: would `json.loads` take them, and what uid do they tell?

Invariant: what is said here is what `json.loads` would say. Where that takes more than this (bytes
that are not ASCII, NaN, deep nesting, very long numbers, escaped names), the answer is "ask it".

Imported where JSON is read and not before, as `tar_plain`.
"""

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel

Bytes = NDArray[np.uint8]

NO_UID, UNSURE = -1, -2

_DEPTH = 32
_DIGITS = 1_000


@kernel
def _spaces(data: Bytes, at: int, stop: int) -> int:
    while at < stop and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@kernel
def _is_hex(byte: int) -> bool:
    return 48 <= byte <= 57 or 65 <= byte <= 70 or 97 <= byte <= 102


@kernel
def _string(data: Bytes, at: int, stop: int) -> tuple[int, bool]:
    """Behind a string that begins at `at`, and whether it has escapes; -1 where it is none, or not ASCII."""
    escaped = False
    at += 1
    while at < stop:
        byte = data[at]
        if byte == 34:
            return at + 1, escaped
        if byte < 32 or byte >= 128:
            return -1, escaped
        if byte == 92:
            escaped = True
            at += 1
            if at >= stop:
                return -1, escaped
            kind = data[at]
            if kind == 117:
                if at + 4 >= stop:
                    return -1, escaped
                for i in range(at + 1, at + 5):
                    if not _is_hex(data[i]):
                        return -1, escaped
                at += 4
            elif not (
                kind == 34 or kind == 92 or kind == 47 or kind == 98
                or kind == 102 or kind == 110 or kind == 114 or kind == 116
            ):  # fmt: skip
                return -1, escaped
        at += 1
    return -1, escaped


@kernel
def _digits(data: Bytes, at: int, stop: int) -> int:
    while at < stop and 48 <= data[at] <= 57:
        at += 1
    return at


@kernel
def _number(data: Bytes, at: int, stop: int) -> int:
    """Behind a number that begins at `at`; -1 where it is none, or too long."""
    if at < stop and data[at] == 45:
        at += 1
    end = _digits(data, at, stop)
    if end == at or end - at > _DIGITS or (data[at] == 48 and end > at + 1):
        return -1
    at = end
    if at < stop and data[at] == 46:
        end = _digits(data, at + 1, stop)
        if end == at + 1:
            return -1
        at = end
    if at < stop and (data[at] == 101 or data[at] == 69):
        at += 1
        if at < stop and (data[at] == 43 or data[at] == 45):
            at += 1
        end = _digits(data, at, stop)
        if end == at:
            return -1
        at = end
    return at


@kernel
def _word(data: Bytes, at: int, stop: int) -> int:
    """Behind `true`, `false` or `null`; -1 where there is none."""
    for word in ((116, 114, 117, 101), (110, 117, 108, 108)):
        if at + 4 <= stop:
            same = True
            for i in range(4):
                same = same and data[at + i] == word[i]
            if same:
                return at + 4
    if at + 5 <= stop and data[at] == 102 and data[at + 1] == 97 and data[at + 2] == 108:
        if data[at + 3] == 115 and data[at + 4] == 101:
            return at + 5
    return -1


@kernel
def find_uid(data: Bytes, at: int, stop: int) -> int:
    """Where the object at [at, stop) tells a uid of 32 hex digits.

    Args:
        data: bytes around it.
        at: first byte of the text.
        stop: behind its last.

    Returns:
        The position of the 32 digits in `data`; `NO_UID`: JSON that tells no such uid; `UNSURE`:
        ask `json.loads`.
    """
    is_object = np.zeros(_DEPTH, np.bool_)
    uid, depth = NO_UID, 0
    at = _spaces(data, at, stop)
    if at >= stop or data[at] != 123:
        return UNSURE
    is_object[0] = True
    depth, at = 1, at + 1
    may_close = True
    while depth:
        at = _spaces(data, at, stop)
        if at >= stop:
            return UNSURE
        byte = data[at]
        closing = 125 if is_object[depth - 1] else 93
        if byte == closing:
            if not may_close:
                return UNSURE
            depth, at = depth - 1, at + 1
        else:
            is_uid = False
            if is_object[depth - 1]:
                if byte != 34:
                    return UNSURE
                start = at
                at, escaped = _string(data, at, stop)
                if at < 0 or (escaped and depth == 1):
                    return UNSURE
                is_uid = (
                    depth == 1
                    and at - start == 5
                    and data[start + 1] == 117
                    and data[start + 2] == 105
                    and data[start + 3] == 100
                )
                at = _spaces(data, at, stop)
                if at >= stop or data[at] != 58:
                    return UNSURE
                at = _spaces(data, at + 1, stop)
                if at >= stop:
                    return UNSURE
                byte = data[at]
                if is_uid:
                    uid = NO_UID
            if byte == 123 or byte == 91:
                if depth == _DEPTH:
                    return UNSURE
                is_object[depth] = byte == 123
                depth, at, may_close = depth + 1, at + 1, True
                continue
            if byte == 34:
                start = at
                at, escaped = _string(data, at, stop)
                # An escaped uid may still spell 32 digits.
                if at < 0 or (is_uid and escaped):
                    return UNSURE
                if is_uid and at - start == 34:
                    uid = start + 1
                    for i in range(start + 1, at - 1):
                        if not _is_hex(data[i]):
                            uid = NO_UID
            elif byte == 45 or 48 <= byte <= 57:
                at = _number(data, at, stop)
            else:
                at = _word(data, at, stop)
            if at < 0:
                return UNSURE
        # Behind a value: a comma and another, or the end of what holds it.
        if depth:
            at = _spaces(data, at, stop)
            if at >= stop:
                return UNSURE
            if data[at] == 44:
                at, may_close = at + 1, False
            else:
                if data[at] != (125 if is_object[depth - 1] else 93):
                    return UNSURE
                may_close = True
    return uid if _spaces(data, at, stop) == stop else UNSURE
