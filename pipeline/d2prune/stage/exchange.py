"""Files through which units send rows to each other: records sorted by destination, behind an index.

    int64            number of destinations, G
    G x (start, crc) offset of each destination's records, and their CRC-32; then the end offset
    records          fixed-size numpy records, grouped by destination, in the order they were given

Reading one destination takes two ranged reads: its index entry and its records.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from d2prune import store
from d2prune.store import artifacts

Records = npt.NDArray[np.void]
Int64 = npt.NDArray[np.int64]

_ENTRY = np.dtype([("start", "<i8"), ("crc", "<u4")])
_READERS = 8


def pack(records_R: Records, destinations_R: Int64, n_destinations: int) -> bytes:
    """Return the file that holds some records.

    Args:
        records_R: structured [R].
        destinations_R: int64 [R], each in [0, n_destinations).
        n_destinations: G.
    """
    return pack_batches([(records_R, destinations_R)], n_destinations)


def pack_batches(batches: list[tuple[Records, Int64]], n_destinations: int) -> bytes:
    """Return the file that holds several batches of records, in order; empties the list.

    Memory: the records once, and the file.

    Args:
        batches: arguments as of `pack`; at least one batch, all of one record type.
        n_destinations: G.
    """
    dtype = batches[0][0].dtype
    sorted_batches, bounds_of_batches = [], []
    while batches:
        records_R, destinations_R = batches.pop(0)
        bounds = np.zeros(n_destinations + 1, np.int64)
        np.cumsum(np.bincount(destinations_R, minlength=n_destinations), out=bounds[1:])
        sorted_batches.append(records_R[np.argsort(destinations_R, kind="stable")].view(np.uint8).data)
        bounds_of_batches.append((bounds * dtype.itemsize).tolist())
    index = np.zeros(n_destinations + 1, _ENTRY)
    index["start"] = 8 + index.nbytes + np.sum(bounds_of_batches, axis=0)
    sink = io.BytesIO()
    sink.write(np.int64(n_destinations).tobytes())
    sink.write(index.tobytes())
    for number in range(n_destinations):
        crc = 0
        for body, starts in zip(sorted_batches, bounds_of_batches, strict=True):
            data = body[starts[number] : starts[number + 1]]
            crc = zlib.crc32(data, crc)
            sink.write(data)
        index["crc"][number] = crc
    sink.seek(8)
    sink.write(index.tobytes())
    return sink.getvalue()


def read(url: str, dtype: np.dtype[Any], destination: int) -> Records:
    """Read the records of one destination, in the order they were given to `pack`.

    Raises:
        DamagedFileError: their checksum does not match.
    """
    with store.ranged_reader(url) as fetch:
        entry, following = np.frombuffer(
            fetch(8 + destination * _ENTRY.itemsize, 2 * _ENTRY.itemsize), _ENTRY
        )
        size = int(following["start"] - entry["start"])
        data = fetch(int(entry["start"]), size) if size else b""
    crc = zlib.crc32(data)
    if crc != entry["crc"]:
        raise artifacts.describe_damage(
            url, f"destination {destination}: found CRC-32 {crc:08x}; expected {entry['crc']:08x}"
        )
    return np.frombuffer(data, dtype)


def read_all(urls: Sequence[str], dtype: np.dtype[Any], destination: int) -> Iterator[Records]:
    """Yield the records of one destination from each file, a few files prefetched."""
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(urls), _READERS):
            yield from pool.map(lambda url: read(url, dtype, destination), urls[first : first + _READERS])


def read_concatenated(urls: Sequence[str], dtype: np.dtype[Any], destination: int) -> Records:
    """Read the records of one destination from all files as one array."""
    return np.concatenate([np.zeros(0, dtype), *read_all(urls, dtype, destination)])
