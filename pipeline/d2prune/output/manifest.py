"""The manifest of an output folder, `manifest.json`: what the folder holds, and what it was made from.

It is written last, so its presence means that the folder is complete. It holds no times and no
machine names: the same pool, selection and parameters give the same bytes. Its last entry,
`checksum`, is that of the others, so a change to it is found, too.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import layout
from d2prune.store.artifacts import FileRecord

FORMAT = 2
"""Increased whenever the meaning of an output folder's content changes."""


_CHECKSUM = "checksum"
CHANGED = "found a checksum that is not that of its content; expected the file as the run wrote it"


@dataclass(frozen=True)
class InputShard:
    """An input tar or table; `name` is its value in the column `shard` of the output's tables."""

    url: str
    name: str
    size: int


@dataclass(frozen=True)
class OutputManifest:
    """Content and origin of an output folder.

    Attributes:
        identity: fingerprint of everything that decides the content; also in the claim.
        params: parameters the output was written with.
        counts: `pool` (samples to choose from), `selected`, `written`, `shards`, and repairs.
        inputs: the pool's tars or tables, in canonical order.
        files: every other object of the folder, by name.
        format: see `FORMAT`.
    """

    identity: str
    params: Mapping[str, Any]
    counts: Mapping[str, int]
    inputs: tuple[InputShard, ...]
    files: tuple[FileRecord, ...]
    format: int = FORMAT

    @property
    def is_tables(self) -> bool:
        """Whether the output holds tables of kept samples instead of tars."""
        return bool(self.kept_tables)

    @property
    def is_stable(self) -> bool:
        """Whether the tars are shared with other outputs."""
        return self.params.get(layout.STABLE_OPTION) is True

    @property
    def kept_tables(self) -> list[FileRecord]:
        """Tables of kept samples, of an output without tars."""
        return [file for file in self.files if file.name.startswith(layout.KEPT_PREFIX)]

    @property
    def tars(self) -> list[FileRecord]:
        """The output tars."""
        return [file for file in self.files if file.name.endswith(".tar")]

    def rows(self, name: str) -> int | None:
        """Return the number of rows of the table `name`, None if the folder has no such table."""
        return next((file.rows for file in self.files if file.name == name), None)


def encode_record(value: Any) -> bytes:
    """Encode a record of an output folder as JSON; equal values give equal bytes."""
    return store.encode_record(value, sort_keys=True, indent=1) + b"\n"


def write_manifest(output: str, manifest: OutputManifest) -> None:
    """Write the manifest, which makes the output complete."""
    store.write_bytes(store.join(output, layout.MANIFEST), encode_manifest(manifest))


def encode_manifest(manifest: OutputManifest) -> bytes:
    """The bytes of the file."""
    record = dataclasses.asdict(manifest)
    for file in record["files"]:
        # Files of an output folder are verified as a whole.
        del file["footer"]
    return seal(record)


def seal(record: Mapping[str, Any]) -> bytes:
    """Encode the entries of a manifest together with their checksum."""
    # The checksum is that of what is stored, which holds no credentials.
    entries = json.loads(encode_record({name: value for name, value in record.items() if name != _CHECKSUM}))
    return encode_record(entries | {_CHECKSUM: store.checksum(encode_record(entries))})


def read_manifest(output: str, name: str = layout.MANIFEST) -> OutputManifest | None:
    """Read the manifest of an output folder, None if the folder is not complete.

    Args:
        output: URL of the folder.
        name: of the file; pruning renames it.

    Raises:
        UserError: the manifest is damaged, or of another version.
    """
    url = store.join(output, name)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError:
        return None
    manifest = parse_manifest(data, store.redact(url))
    if data != encode_manifest(manifest):
        raise UserError(f"{store.redact(url)}: {CHANGED}")
    return manifest


def parse_manifest(data: bytes, shown: str) -> OutputManifest:
    """Parse a manifest, whether or not it is as it was written.

    Args:
        data: the bytes of the file.
        shown: its URL, for messages.

    Raises:
        UserError: it cannot be parsed, or is of another version.
    """
    try:
        record = json.loads(data)
        if record["format"] != FORMAT:
            raise UserError(f"{shown}: found format {record['format']}; expected {FORMAT}")
        del record[_CHECKSUM]
        record["inputs"] = tuple(InputShard(**shard) for shard in record["inputs"])
        record["files"] = tuple(FileRecord(**file) for file in record["files"])
        manifest = OutputManifest(**record)
        _check_types(manifest)
        return manifest
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{shown}: not the manifest of an output folder: {error}") from error


def _check_types(manifest: OutputManifest) -> None:
    """Raise TypeError or ValueError if a value is not of the type that a run writes."""
    fits = isinstance(manifest.identity, str) and isinstance(manifest.params, dict)
    numbers = [*dict(manifest.counts).values(), *(shard.size for shard in manifest.inputs)]
    texts = [text for shard in manifest.inputs for text in (shard.url, shard.name)]
    for file in manifest.files:
        numbers += [file.size, 0 if file.rows is None else file.rows]
        texts += [file.name, file.checksum]
    fits &= all(type(number) is int and number >= 0 for number in numbers)
    if not fits or not all(isinstance(text, str) for text in texts):
        raise ValueError("found values of other types")
