"""Files of an output folder, read once, with their checksums compared."""

import json
from typing import Any

from d2prune import store
from d2prune.output import layout
from d2prune.output.manifest import OutputManifest
from d2prune.store.artifacts import FileRecord


class Contents:
    """Reads the files that the manifest lists.

    Attributes:
        manifest: of the folder.
        faults: a line for each file read so far that differs from the manifest.
    """

    def __init__(self, output: str, manifest: OutputManifest, missing: frozenset[str]) -> None:
        """Read nothing yet.

        Args:
            output: URL of the folder.
            manifest: of the folder.
            missing: names of listed files that the folder does not have.
        """
        self.manifest, self.faults = manifest, list[str]()
        self._output, self._missing = output, missing
        self._records = {file.name: file for file in manifest.files if layout.kind_of(file.name)}
        self._compared: set[str] = set()

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, whether or not they are as listed; None if it is missing or not listed."""
        record = self._records.get(name)
        if record is None or name in self._missing:
            return None
        data = store.read_bytes(layout.locate(self._output, name))
        self._compare(record, data)
        return data

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object, empty if the file holds anything else; None as `read`."""
        data = self.read(name)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def read_remaining(self) -> None:
        """Read every file that has not been read, except tars, which `TarChecker` reads."""
        for name in self._records:
            kind = layout.kind_of(name)
            if name not in self._compared and kind is not None and not kind.sampled:
                self.read(name)

    def _compare(self, record: FileRecord, data: bytes) -> None:
        if record.name not in self._compared and store.checksum(data) != record.checksum:
            self.faults.append(f"{record.name}: checksum differs from the manifest")
        self._compared.add(record.name)
