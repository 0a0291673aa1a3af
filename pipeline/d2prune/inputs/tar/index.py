"""The ordinary stretch of a tar -> where its samples lie, their keys and uids, all as arrays: no object per sample.

Reads a view or a stream, gives batches, and what is left for the general way (`tar.TarReader`).
Invariant: a batch says what `TarReader` and `json.loads` would say.

Imported where a tar is indexed and not before, as `tar_plain`.
"""

import io
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.inputs.tar.json_scan import find_uid
from d2prune.inputs.tar.reader import DEFAULT_MAX_MEMBER_BYTES
from d2prune.inputs.tar.scan import scan

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_MEMBERS = 4_096
_STREAM_BYTES = 2**22
"""Of a stream, looked at in one go."""

_START, _SIZE, _KEY_SIZE, _UID_AT, _JSON_AT, _JSON_SIZE = range(6)
NO_JSON = -3


@dataclass(frozen=True)
class Batch:
    """S samples side by side.

    Attributes:
        offsets: int64 [S], in the tar.
        sizes: int64 [S].
        key_bytes: all keys, ASCII, joined.
        key_bounds: int64 [S + 1], where each begins there.
        uids: uint8 [S, 32], lower-case hex digits; where `jsons` tells of the sample, nothing.
        jsons: for the samples whose uid takes another look: their json member, None where there is none.
    """

    offsets: Positions
    sizes: Positions
    key_bytes: Bytes
    key_bounds: Positions
    uids: Bytes
    jsons: dict[int, bytes | None]


def read_batches(
    content: memoryview | IO[bytes],
) -> Generator[Batch, None, tuple[int, memoryview | IO[bytes]]]:
    """Batches up to the first header that is not ordinary; the last sample is left out.

    Returns:
        How many bytes were passed, and the rest, for a `TarReader`.
    """
    if isinstance(content, memoryview):
        position = yield from _batches(np.frombuffer(content, np.uint8), 0)
        return position, content[position:]
    passed = filled = 0
    held = bytearray(_STREAM_BYTES)
    view = memoryview(held)
    while True:
        while filled < len(held) and (count := _readinto(content, view[filled:])):
            filled += count
        used = yield from _batches(np.frombuffer(view[:filled].toreadonly(), np.uint8), passed)
        passed += used
        if filled < len(held) or not used:
            return passed, io.BufferedReader(_Rest(view[used:filled], content), 2**20)
        view[: filled - used] = view[used:filled]
        filled -= used


class _Rest(io.RawIOBase):
    """What was read of a stream and not used, then the stream."""

    def __init__(self, held: memoryview, stream: IO[bytes]) -> None:
        super().__init__()
        self._held, self._stream = held, stream

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; none at the end."""
        held = self._held[: len(buffer)]
        if not held:
            return _readinto(self._stream, buffer)
        buffer[: len(held)] = held
        self._held = self._held[len(held) :]
        return len(held)


def _readinto(stream: IO[bytes], buffer: memoryview) -> int:
    return int(stream.readinto(buffer))  # type: ignore[attr-defined]


def _batches(data: Bytes, base: int) -> Generator[Batch, None, int]:
    """`base` is where in the tar the data begins; returns where in the data the rest begins."""
    position: int = 0
    most = _MEMBERS
    while True:
        members = np.empty((most, 5), np.int64)
        found = scan(data, position, DEFAULT_MAX_MEMBER_BYTES, members)
        samples, used = _samples(data, members, found, position)
        if len(samples):
            yield _batch(data, samples, base)
        position = int(used)
        if found < most:
            return position
        if not len(samples):
            most *= 2


def _batch(data: Bytes, samples: Positions, base: int) -> Batch:
    bounds = np.zeros(len(samples) + 1, np.int64)
    np.cumsum(samples[:, _KEY_SIZE], out=bounds[1:])
    keys, uids = np.empty(bounds[-1], np.uint8), np.zeros((len(samples), 32), np.uint8)
    _copy(data, samples, bounds, keys, uids)
    jsons: dict[int, bytes | None] = {}
    for i in np.flatnonzero(samples[:, _UID_AT] < 0).tolist():
        at, size = samples[i, _JSON_AT], samples[i, _JSON_SIZE]
        jsons[i] = None if samples[i, _UID_AT] == NO_JSON else data[at : at + size].tobytes()
    return Batch(samples[:, _START] + base, samples[:, _SIZE], keys, bounds, uids, jsons)


@kernel
def _samples(data: Bytes, members: Positions, found: int, position: int) -> tuple[Positions, int]:
    """The whole samples among members, a row each, and where they end; the last one may go on."""
    out = np.empty((found, 6), np.int64)
    count = first = 0
    for row in range(1, found):
        if not members[row, 4]:
            continue
        at = members[first, 0]
        out[count, 0], out[count, 1], out[count, 2] = at, members[row, 0] - at, members[first, 2]
        out[count, 3], out[count, 4], out[count, 5] = NO_JSON, 0, 0
        for member in range(first, row):
            start, size, name = members[member, 0], members[member, 1], members[member, 2] + 1
            if members[member, 3] - name == 4 and _is_json(data, start + name):
                out[count, 3] = find_uid(data, start + 512, start + 512 + size)
                out[count, 4], out[count, 5] = start + 512, size
        count += 1
        first = row
    return out[:count], members[first, 0] if found else position


@kernel
def _is_json(data: Bytes, at: int) -> Any:
    """Whether four letters spell it, in whatever case."""
    return (
        data[at] | 32 == 106
        and data[at + 1] | 32 == 115
        and data[at + 2] | 32 == 111
        and data[at + 3] | 32 == 110
    )


@kernel
def _copy(data: Bytes, samples: Positions, bounds: Positions, keys: Bytes, uids: Bytes) -> None:
    for s in range(len(samples)):
        start, at = samples[s, 0], samples[s, 3]
        for i in range(samples[s, 2]):
            keys[bounds[s] + i] = data[start + i]
        if at >= 0:
            for i in range(32):
                byte = data[at + i]
                uids[s, i] = byte + 32 if 65 <= byte <= 90 else byte
