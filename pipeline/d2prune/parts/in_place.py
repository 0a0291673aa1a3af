"""Embeddings that stay in the arrays of the input: where they are, and how they are read and verified.

An imported part holds no copy of embeddings that can be read in place. Its receipt names the
arrays, relative to the table beside which they were found, so that it holds no path; the table's URL
is in `shard_urls`. The rows of the part are consecutive in each array. Those that the import rejected
are left out by the `offset` of the samples, their row in the table.

What is read has the bits of a copy: `unit_halves` decides each row by itself. Each reader compares an
array's size and version with those recorded. Who reads a whole part also compares the checksum of its
bytes, so a change that leaves size and time alone is found, too. N rows in the part, M wanted, D
dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2prune import store
from d2prune.errors import UserError
from d2prune.store import FileInfo
from d2prune.store.artifacts import Receipt
from d2prune.store.ranges import open_ranges, read_blocks
from d2prune.store.urls import resolve_relative

Float16 = NDArray[np.float16]
Int64 = NDArray[np.int64]

_FACT = "in_place"
_SINCE = "its embeddings were imported"
_BLOCK = 8 << 20
# Rows that lie this close together are read by one request, but not more than a block at a time.
_GAP = 1 << 16
_GAP_REMOTE = 1 << 20


@dataclass(frozen=True)
class ArrayRows:
    """The rows of a part in one array.

    Attributes:
        file: URL of the array's file relative to that of the table.
        size: of the file in bytes.
        version: of the file; see `FileInfo.version`.
        offset: of the part's first row in the file.
        dtype: of the numbers, `<f2` or `<f4`.
        checksum: of the bytes of all rows of the part; see `store.checksum`.
    """

    file: str
    size: int
    version: str
    offset: int
    dtype: str
    checksum: str


@dataclass(frozen=True)
class InPlace:
    """Where the embeddings of a part are.

    Attributes:
        shard: name of the table.
        first: number of the part's first row in the table.
        rows: N, rejected rows included.
        width: D.
        arrays: `image_emb` and `text_emb`, or one of them.
    """

    shard: str
    first: int
    rows: int
    width: int
    arrays: Mapping[str, ArrayRows]

    @property
    def fact(self) -> dict[str, Any]:
        """The entry of a receipt's facts."""
        return {_FACT: dataclasses.asdict(self)}

    @property
    def size(self) -> int:
        """Bytes of the embeddings."""
        return sum(self.rows * self.width * np.dtype(array.dtype).itemsize for array in self.arrays.values())


def find_in_place(receipt: Receipt) -> InPlace | None:
    """Where the embeddings of a part are; None if the part holds them itself."""
    fact = receipt.facts.get(_FACT)
    if fact is None:
        return None
    arrays = {side: ArrayRows(**array) for side, array in fact["arrays"].items()}
    return InPlace(**{**fact, "arrays": arrays})


@dataclass(frozen=True)
class InPlaceReader:
    """Reads the embeddings of one part.

    Attributes:
        place: where they are.
        table: URL of the part's table.
        kept_N: int64, ascending numbers in the table of the rows that were not rejected; None: all.
    """

    place: InPlace
    table: str
    kept_N: Int64 | None

    def read_blocks(self, sides: Sequence[str]) -> Iterator[list[Float16]]:
        """Read all rows that were not rejected, in order, a block at a time.

        Args:
            sides: of `place.arrays`.

        Yields:
            float16 [M, D] for each side, of the same rows.

        Raises:
            UserError: an array is missing or has changed.
            InfrastructureError: the storage failed.
        """
        place = self.place
        widest = max(self._row_bytes(side) for side in sides)
        step = max(1, _BLOCK // widest)
        blocks = [self._read_verified(side, step) for side in sides]
        for start, found in zip(range(0, place.rows, step), zip(*blocks, strict=True), strict=True):
            if self.kept_N is None:
                yield list(found)
                continue
            bounds = place.first + np.array([start, start + step])
            low, high = np.searchsorted(self.kept_N, bounds)
            rows_M = self.kept_N[low:high] - bounds[0]
            yield [side_MD[rows_M] for side_MD in found]

    def take(self, row_M: Int64, sides: Sequence[str]) -> list[Float16]:
        """Read some rows, in the given order.

        Args:
            row_M: int64, rows of the part's tables; one may occur more than once.
            sides: of `place.arrays`.

        Returns:
            float16 [M, D] for each side.

        Raises:
            UserError: an array is missing, or its size or version is another.
            InfrastructureError: the storage failed.
        """
        stored_M = row_M if self.kept_N is None else self.kept_N[row_M] - self.place.first
        wanted_U, inverse_M = np.unique(stored_M, return_inverse=True)
        return [self._take(side, wanted_U)[inverse_M] for side in sides]

    def _take(self, side: str, row_U: Int64) -> Float16:
        """Rows in ascending order, each once; neighbours by one request."""
        array, width = self.place.arrays[side], self._row_bytes(side)
        file = self._file(array)
        gap = (_GAP if store.is_local(file.url) else _GAP_REMOTE) // width + 1
        pieces = []
        with open_ranges(file, _SINCE) as read:
            for first, stop in _join_rows(row_U, gap, max(1, _BLOCK // width)):
                data = read(array.offset + int(row_U[first]) * width, self._span(row_U[first:stop]) * width)
                rows_ND = np.frombuffer(data, array.dtype).reshape(-1, self.place.width)
                pieces.append(_to_unit(rows_ND[row_U[first:stop] - row_U[first]]))
        return np.concatenate(pieces)

    def _read_verified(self, side: str, step: int) -> Iterator[Float16]:
        """All rows of an array, `step` at a time; raises at the end if they are others than were imported."""
        array, width = self.place.arrays[side], self._row_bytes(side)
        file, size = self._file(array), self.place.rows * width
        digest = store.new_checksum()
        with open_ranges(file, _SINCE) as read:
            for data in read_blocks(file, read, array.offset, size, step * width):
                digest.update(data)
                yield _to_unit(np.frombuffer(data, array.dtype).reshape(-1, self.place.width))
        found, last = digest.hexdigest(), self.place.first + self.place.rows - 1
        if found != array.checksum:
            raise UserError(
                f"{store.redact(file.url)}: changed since {_SINCE}, though size and version are the same: "
                f"found checksum {found} of rows {self.place.first} to {last}; expected {array.checksum}; "
                "restore it, or write it anew and run again"
            )

    def _file(self, array: ArrayRows) -> FileInfo:
        return FileInfo(resolve_relative(array.file, self.table), array.size, array.version)

    def _row_bytes(self, side: str) -> int:
        return self.place.width * np.dtype(self.place.arrays[side].dtype).itemsize

    @staticmethod
    def _span(row_U: Int64) -> int:
        return int(row_U[-1] - row_U[0]) + 1


def _join_rows(row_U: Int64, gap: int, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of indices into ascending rows, at most `gap` apart and together at most `most` rows long."""
    first = 0
    for index in range(1, len(row_U) + 1):
        if (
            index == len(row_U)
            or row_U[index] - row_U[index - 1] > gap
            or row_U[index] - row_U[first] >= most
        ):
            yield first, index
            first = index


def _to_unit(rows_ND: NDArray[Any]) -> Float16:
    # Loads numba, which a reader of scores does not need.
    from d2prune.knn.unit_norm import unit_halves

    return unit_halves(rows_ND)[0]
