"""A manifest's file, written and read one unit at a time: the text of a million units is 2 GB.

The file is the JSON object that `json.dumps(manifest, sort_keys=True, indent=1)` gives, so `units`, the
last key, is a list with one object per unit, each of whose lines is indented. Its `checksum` is that of
the same object without it, without line breaks.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from d2prune import store
from d2prune.store.records import Manifest, Receipt, Receipts, parse_receipt, to_json

_CHECKSUM = "checksum"
# Units whose text is searched for credentials together.
_AT_ONCE = 256
_EMPTY = b'"units": []'
_OPEN, _CLOSE = b' "units": [\n', b" ]\n"


def write_manifest(url: str, manifest: Manifest) -> None:
    """Write a manifest with its checksum."""
    head = {name: value for name, value in vars(manifest).items() if name != "units"}
    text = json.loads(store.encode_record(head, sort_keys=True)) | {"units": []}
    digest = store.new_checksum()
    for piece in _compact(text, _recordable(manifest.units)):
        digest.update(piece)
    body = json.dumps(text | {_CHECKSUM: digest.hexdigest()}, sort_keys=True, indent=1).encode()
    if not len(manifest.units):
        store.write_bytes(url, body)
        return
    with store.writer(url) as stream:
        stream.write(body.removesuffix(b"]\n}"))
        for number, unit in enumerate(_recordable(manifest.units)):
            lines = json.dumps(unit, sort_keys=True, indent=1).replace("\n", "\n  ")
            stream.write(((",\n  " if number else "\n  ") + lines).encode())
        stream.write(b"\n ]\n}")


def _recordable(units: Iterable[Receipt]) -> Iterator[dict[str, Any]]:
    """The JSON objects of units without credentials, which are looked for in many at a time."""
    remaining = iter(units)
    while some := [to_json(unit) for unit in itertools.islice(remaining, _AT_ONCE)]:
        yield from json.loads(store.encode_record(some))


def load_manifest(url: str) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: or another of the errors of damaged JSON; the file is not a manifest, or its content
            does not have the checksum it states.
        FileNotFoundError: there is none.
    """
    with store.open_read(url) as stream:
        head = _read_head(stream)
        stated = head.pop(_CHECKSUM, None)
        digest = store.new_checksum()
        units = Receipts(_verified(digest, head, stream))
        if stream.read(2) != (b"}" if len(units) else b""):
            raise ValueError("found another end; expected that of the object")
    if digest.hexdigest() != stated:
        raise ValueError("found a checksum that is not that of its content")
    return Manifest(**head | {"units": units})


def load_head(url: str) -> dict[str, Any]:
    """Read all of a manifest but its units, which are empty here; its checksum is not compared.

    Raises:
        ValueError: the file does not begin as a manifest does.
        FileNotFoundError: there is none.
    """
    with store.open_read(url, ahead=1) as stream:
        return _read_head(stream)


def _read_head(stream: IO[bytes]) -> dict[str, Any]:
    """The object up to its units, which are left in the stream."""
    lines: list[bytes] = []
    for line in stream:
        if line == _OPEN:
            lines.append(b" " + _EMPTY + b"}")
            break
        lines.append(line)
    head = json.loads(b"".join(lines))
    if not isinstance(head, dict):
        raise ValueError(f"found {type(head).__name__}; expected an object")
    return head


def _verified(digest: Any, head: Mapping[str, Any], stream: IO[bytes]) -> Iterator[Receipt]:
    """The units that are left in a stream; `digest` gets the text whose checksum the manifest states."""
    records: list[dict[str, Any]] = []

    def remember() -> Iterator[dict[str, Any]]:
        for unit in _read_units(stream):
            records.append(unit)
            yield unit

    for piece in _compact(head, remember()):
        digest.update(piece)
        if records:
            yield parse_receipt(records.pop())


def _read_units(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    lines: list[bytes] = []
    for line in stream:
        if not lines and line == _CLOSE:
            break
        lines.append(line)
        if line in (b"  }\n", b"  },\n"):
            yield json.loads(b"".join(lines).rstrip(b",\n"))
            lines = []
    if lines:
        raise ValueError("found the beginning of a unit; expected all of it")


def _compact(head: Mapping[str, Any], units: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """The text whose checksum a manifest states, in pieces, one for each unit and one at each end."""
    before = json.dumps(head, sort_keys=True).encode()
    if not before.endswith(_EMPTY + b"}"):
        raise ValueError("found no list of units at the end; expected one")
    yield before.removesuffix(b"]}")
    for number, unit in enumerate(units):
        yield ((", " if number else "") + json.dumps(unit, sort_keys=True)).encode()
    yield b"]}"
