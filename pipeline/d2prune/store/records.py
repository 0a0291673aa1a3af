"""Receipts and manifests as values, and many receipts in little memory.

A receipt takes 3 to 5 kB as Python objects, so a million of them would take the driver's memory.
`Receipts` keeps them as compressed JSON, about 250 bytes each, and decodes those that are asked for.
"""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from d2prune.store.schemas import SCHEMA_VERSION

# Receipts compressed together. One that is asked for by itself costs the decoding of its block, a
# millisecond.
_BLOCK = 64
_LEVEL = 6


@dataclass(frozen=True)
class FileRecord:
    """One committed file.

    Attributes:
        name: in the unit's folder.
        rows: of a table; None for other files.
        size: in bytes.
        checksum: see `store.checksum`.
        footer: of a table, `footer_checksum`, so that parts of it can be read and verified.
    """

    name: str
    rows: int | None
    size: int
    checksum: str
    footer: str | None = None


@dataclass(frozen=True)
class Receipt:
    """What one unit of work produced.

    Attributes:
        key: the unit's.
        files: that it wrote.
        counters: what it counted; summed over units.
        facts: what it measured; JSON values.
    """

    key: str
    files: tuple[FileRecord, ...]
    counters: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, name: str) -> int:
        """Rows of the table `name`."""
        return next(record.rows or 0 for record in self.files if record.name == name)


@dataclass(frozen=True)
class Manifest:
    """A complete artifact: its identity, units in canonical order and sums of their counters."""

    stage: str
    fingerprint: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    units: Sequence[Receipt]
    counters: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def to_json(receipt: Receipt) -> dict[str, Any]:
    """The JSON object of a receipt; what is stored of it goes through `store.encode_record`."""
    return vars(receipt) | {"files": [vars(file) for file in receipt.files]}


def parse_receipt(record: Mapping[str, Any]) -> Receipt:
    """A receipt from its JSON object; raises one of several errors if it is none."""
    return Receipt(
        key=record["key"],
        files=tuple(FileRecord(**file) for file in record["files"]),
        counters=record["counters"],
        facts=record["facts"],
    )


class Receipts(Sequence[Receipt]):
    """A sequence of receipts in little memory; equal to any sequence of the same receipts."""

    def __init__(self, receipts: Iterable[Receipt] = ()) -> None:
        """Encode receipts, in their order, a block at a time."""
        self._blocks: list[bytes] = []
        self._length = 0
        block: list[Receipt] = []
        for receipt in receipts:
            block.append(receipt)
            if len(block) == _BLOCK:
                self._add(block)
                block = []
        if block:
            self._add(block)
        self._recent: tuple[int, list[Receipt]] = (-1, [])

    def _add(self, block: list[Receipt]) -> None:
        self._blocks.append(_compress([to_json(receipt) for receipt in block]))
        self._length += len(block)

    def _read(self, number: int) -> list[Receipt]:
        known, receipts = self._recent
        if known != number:
            receipts = [parse_receipt(one) for one in json.loads(zlib.decompress(self._blocks[number]))]
            self._recent = (number, receipts)
        return receipts

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Receipt]:
        for number in range(len(self._blocks)):
            yield from self._read(number)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt]: ...

    def __getitem__(self, index: int | slice) -> Receipt | Sequence[Receipt]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return self._read(position // _BLOCK)[position % _BLOCK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Receipts({list(self)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": (-1, [])}


def pack_receipt(receipt: Receipt) -> bytes:
    """One receipt by itself, compressed, for receipts that arrive in any order."""
    return _compress(to_json(receipt))


def _compress(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, default=_to_mapping).encode(), _LEVEL)


def _to_mapping(value: Any) -> Any:
    """The same values that a receipt's file may hold."""
    return dict(value) if isinstance(value, Mapping) else dataclasses.asdict(value)


def unpack_receipt(data: bytes) -> Receipt:
    """The receipt that `pack_receipt` was given."""
    return parse_receipt(json.loads(zlib.decompress(data)))
