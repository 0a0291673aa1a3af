"""The manifest of an output folder, `manifest.json`: what the folder holds, and what it was made from.

It is written last, so its presence means that the folder is complete. It holds no times and no
machine names: the same pool, selection and parameters give the same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2prune import store
from d2prune.errors import UserError
from d2prune.output import layout
from d2prune.output.objects import write_object
from d2prune.redaction import encode_json
from d2prune.store.artifacts import FileRecord

FORMAT = 1
"""Increased whenever the meaning of an output folder's content changes."""


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
    def kept_tables(self) -> list[FileRecord]:
        """Tables of kept samples, of an output without tars."""
        return [file for file in self.files if file.name.startswith(layout.KEPT_PREFIX)]

    def rows(self, name: str) -> int | None:
        """Return the number of rows of the table `name`, None if the folder has no such table."""
        return next((file.rows for file in self.files if file.name == name), None)


def encode_record(value: Any) -> bytes:
    """Encode a record of an output folder as JSON; equal values give equal bytes."""
    return encode_json(value, sort_keys=True, indent=1) + b"\n"


def write_manifest(output: str, manifest: OutputManifest) -> None:
    """Write the manifest, which makes the output complete."""
    write_object(output, layout.MANIFEST, encode_record(manifest))


def read_manifest(output: str, name: str = layout.MANIFEST) -> OutputManifest | None:
    """Read the manifest of an output folder, None if the folder is not complete.

    Args:
        output: URL of the folder.
        name: of the file; pruning renames it.

    Raises:
        UserError: this version cannot read the manifest.
    """
    url = store.join(output, name)
    try:
        data = store.read_bytes(url)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        if record["format"] != FORMAT:
            raise UserError(f"{store.redact(url)}: found format {record['format']}; expected {FORMAT}")
        record["inputs"] = tuple(InputShard(**shard) for shard in record["inputs"])
        record["files"] = tuple(FileRecord(**file) for file in record["files"])
        return OutputManifest(**record)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{store.redact(url)}: not the manifest of an output folder: {error}") from error
