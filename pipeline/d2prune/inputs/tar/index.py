"""Index the samples of a tar as arrays: byte ranges, keys and uids, with no object per sample.

Reads a stream, yields batches, and returns the rest of the tar, from the first header that is not
ordinary, for `TarReader`. Invariant: a batch holds what `TarReader` and `json.loads` would
find.

Import this module only where a tar is indexed: loading numba takes longer than indexing a small tar.
"""

import io
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from d2prune.compiled.decorator import kernel
from d2prune.inputs.tar.header_scan import scan_headers
from d2prune.inputs.tar.json_scan import find_uid
from d2prune.inputs.tar.reader import DEFAULT_MAX_MEMBER_BYTES

Bytes = NDArray[np.uint8]
Positions = NDArray[np.int64]

_SCAN_MEMBERS = 4_096
# Fits the processor's cache: with 4 MiB, indexing samples of 1 KB took a third longer.
_STREAM_BYTES = 2**21

_START, _SIZE, _KEY_SIZE, _UID_AT, _JSON_AT, _JSON_SIZE = range(6)
_NO_JSON = -3


@dataclass(frozen=True)
class SampleBatch:
    """S samples as arrays.

    Attributes:
        offsets: int64 [S], byte of each sample in the tar.
        sizes: int64 [S].
        key_bytes: all keys, ASCII, joined.
        key_bounds: int64 [S + 1]: key s is `key_bytes[key_bounds[s] : key_bounds[s + 1]]`.
        uids: uint8 [S, 32], lower-case hex digits; undefined for samples in `jsons`.
        jsons: samples whose uid the caller has to determine -> their JSON member, None where there is
            none.
    """

    offsets: Positions
    sizes: Positions
    key_bytes: Bytes
    key_bounds: Positions
    uids: Bytes
    jsons: dict[int, bytes | None]


def read_batches(stream: IO[bytes]) -> Generator[SampleBatch, None, tuple[int, IO[bytes]]]:
    """Yield batches up to the first header that is not ordinary, without the last sample before it.

    Local files, too, are read and not mapped: a mapped file that another program truncates ends this
    process with SIGBUS. Reading everything takes as long as mapping for samples of 20 KB; at 100 KB
    it takes 0.05 s per GB more.

    Returns:
        How many bytes the batches cover, and the rest of the tar for a `TarReader`.
    """
    passed = filled = 0
    held = bytearray(_STREAM_BYTES)
    view = memoryview(held)
    while True:
        while filled < len(held) and (count := _readinto(stream, view[filled:])):
            filled += count
        used = yield from _scan_batches(np.frombuffer(view[:filled].toreadonly(), np.uint8), passed)
        passed += used
        if filled < len(held) or not used:
            return passed, io.BufferedReader(_Rest(view[used:filled], stream), 2**20)
        view[: filled - used] = view[used:filled]
        filled -= used


class _Rest(io.RawIOBase):
    """Bytes that were read from a stream but not used, followed by the stream."""

    def __init__(self, held: memoryview, stream: IO[bytes]) -> None:
        super().__init__()
        self._held, self._stream = held, stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` and return the number of bytes; 0 at the end."""
        held = self._held[: len(buffer)]
        if not held:
            return _readinto(self._stream, buffer)
        buffer[: len(held)] = held
        self._held = self._held[len(held) :]
        return len(held)


def _readinto(stream: IO[bytes], buffer: memoryview) -> int:
    return int(stream.readinto(buffer))  # type: ignore[attr-defined]


def _scan_batches(data: Bytes, base: int) -> Generator[SampleBatch, None, int]:
    """Yield batches of `data`, from byte `base` of the tar; return where in `data` the rest begins."""
    position: int = 0
    max_members = _SCAN_MEMBERS
    while True:
        members = np.empty((max_members, 5), np.int64)
        found = scan_headers(data, position, DEFAULT_MAX_MEMBER_BYTES, members)
        samples, used = _group_samples(data, members, found, position)
        if len(samples):
            yield _make_batch(data, samples, base)
        position = int(used)
        if found < max_members:
            return position
        if not len(samples):
            max_members *= 2


def _make_batch(data: Bytes, samples: Positions, base: int) -> SampleBatch:
    bounds = np.zeros(len(samples) + 1, np.int64)
    np.cumsum(samples[:, _KEY_SIZE], out=bounds[1:])
    keys, uids = np.empty(bounds[-1], np.uint8), np.zeros((len(samples), 32), np.uint8)
    _copy_keys_and_uids(data, samples, bounds, keys, uids)
    jsons: dict[int, bytes | None] = {}
    for i in np.flatnonzero(samples[:, _UID_AT] < 0).tolist():
        at, size = samples[i, _JSON_AT], samples[i, _JSON_SIZE]
        jsons[i] = None if samples[i, _UID_AT] == _NO_JSON else data[at : at + size].tobytes()
    return SampleBatch(samples[:, _START] + base, samples[:, _SIZE], keys, bounds, uids, jsons)


@kernel
def _group_samples(data: Bytes, members: Positions, found: int, position: int) -> tuple[Positions, int]:
    """Return a row per complete sample, and where they end; leaves out the last, which may continue."""
    out = np.empty((found, 6), np.int64)
    count = first = 0
    for row in range(1, found):
        if not members[row, 4]:
            continue
        at = members[first, 0]
        out[count, 0], out[count, 1], out[count, 2] = at, members[row, 0] - at, members[first, 2]
        out[count, 3], out[count, 4], out[count, 5] = _NO_JSON, 0, 0
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
    """Whether the four bytes at `at` are `json`, in any case."""
    return (
        data[at] | 32 == 106
        and data[at + 1] | 32 == 115
        and data[at + 2] | 32 == 111
        and data[at + 3] | 32 == 110
    )


@kernel
def _copy_keys_and_uids(data: Bytes, samples: Positions, bounds: Positions, keys: Bytes, uids: Bytes) -> None:
    for s in range(len(samples)):
        start, at = samples[s, 0], samples[s, 3]
        for i in range(samples[s, 2]):
            keys[bounds[s] + i] = data[start + i]
        if at >= 0:
            for i in range(32):
                byte = data[at + i]
                uids[s, i] = byte + 32 if 65 <= byte <= 90 else byte
