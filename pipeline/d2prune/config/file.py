"""Read a configuration: a YAML file at any URL, and overrides such as `select.fraction=0.3`.

`model.py` validates the values. `Settings` finds who is to blame for a fault: the line of the file
or the override.
"""

import codecs
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2prune import store
from d2prune.config.messages import Fault
from d2prune.config.yaml_text import MAX_DEPTH, Path, YamlError, escape, read_document
from d2prune.errors import UserError

MAX_BYTES = 4 * 2**20
"""Limit on a configuration file; PyYAML reads about 1 MB/s."""


@dataclass(frozen=True, eq=False)
class Override:
    """One `--set KEY=VALUE`, or a flag of the command line that sets a key."""

    text: str
    path: tuple[str, ...]
    value: Any
    option: str = "--set"

    def __str__(self) -> str:
        return f"{self.option} {escape(store.redact(self.text), 200)}"


@dataclass(frozen=True)
class Settings:
    """Plain values of a file and overrides, before validation.

    Attributes:
        source: name of the file, for messages.
        values: what the file holds.
        lines: line of every value in the file.
        overrides: in the order in which they apply.
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()

    def merge(self, without: Override | None = None) -> dict[str, Any]:
        """Return the values with all overrides applied, or all but one.

        Raises:
            UserError: an override names a key below something that is not a section.
        """
        merged = copy.deepcopy(dict(self.values)) if self.overrides else dict(self.values)
        for override in self.overrides:
            if override is not without:
                _apply(merged, override)
        return merged

    def blame(self, faults: Sequence[Fault], find_faults: Callable[[dict[str, Any]], list[Fault]]) -> str:
        """Return the message: each fault after the override that causes it, or its line in the file.

        Args:
            faults: of the merged values.
            find_faults: validates other values. A fault is caused by the override without which it
                disappears.
        """
        causes = {override: self._list_without(override, find_faults) for override in self.overrides}
        found: dict[str, list[str]] = {}
        for fault in faults:
            setting = [override for override in causes if override.path == fault.path[: len(override.path)]]
            blamed = [
                override
                for override, left in causes.items()
                if fault not in left and not any(_is_missing(other, override) for other in left)
            ] or setting[-1:]
            origin = " ".join(map(str, blamed)) or self.source
            line = None if blamed else self._find_line(fault.path)
            found.setdefault(origin, []).append(fault.text if line is None else f"line {line}: {fault.text}")
        return "; ".join(f"{origin}: {'; '.join(texts)}" for origin, texts in found.items())

    def _list_without(
        self, override: Override, find_faults: Callable[[dict[str, Any]], list[Fault]]
    ) -> list[Fault]:
        try:
            return find_faults(self.merge(without=override))
        except UserError:
            return []

    def _find_line(self, path: Path) -> int | None:
        """Return the line of a key, or of the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def _is_missing(fault: Fault, override: Override) -> bool:
    """Whether a fault is that a key is missing which an override sets."""
    return fault.missing and fault.path == override.path[: len(fault.path)]


def read(source: str | None, overrides: Sequence[str | Override]) -> Settings:
    """Read the values of a YAML file and parse the overrides.

    Args:
        source: path or URL of the file; None: there is none.
        overrides: `KEY=VALUE`, whose value is YAML; or parsed.

    Raises:
        UserError: one line with the file or the override, and what was expected.
    """
    parsed = tuple(item if isinstance(item, Override) else parse_override(item) for item in overrides)
    if source is None:
        return Settings("command line", {}, overrides=parsed)
    try:
        document = read_document(_decode(_read_bytes(source), source))
    except YamlError as error:
        place = "" if error.line is None else f"line {error.line}"
        place += "" if error.column is None else f", column {error.column}"
        raise UserError(f"{source}: invalid YAML: {f'{place}: ' if place else ''}{error.problem}") from None
    if not isinstance(document.value, dict):
        found = {type(None): "an empty file", list: "a list"}.get(type(document.value), "a single value")
        raise UserError(f"{source}: expected keys such as input, work_dir and output; found {found}")
    return Settings(source, document.value, document.lines, parsed)


def _read_bytes(source: str) -> bytes:
    try:
        if "://" in source:
            size = store.info(source).size
            data = store.read_bytes(source) if size <= MAX_BYTES else bytes(MAX_BYTES + 1)
        else:
            # Not through `store`, which reads by size: a pipe, as in `--config <(...)`, has none.
            with open(os.path.expanduser(source), "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{source}: found more than {MAX_BYTES // 2**20} MiB; expected a configuration file")
    return data


def _decode(data: bytes, source: str) -> str:
    """UTF-8 or, after a byte order mark, UTF-16."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{source}: cannot be read: expected text in UTF-8; found other bytes at {error.start}"
        ) from error


def parse_override(text: str) -> Override:
    """Parse `a.b=c`; the value is YAML, and empty text is null.

    Raises:
        UserError: one line with the override, and what was expected.
    """
    key, equals, value = text.partition("=")
    path = tuple(name.strip() for name in key.split("."))
    override = Override(text, path, None)
    if not equals or not all(path):
        raise UserError(f"{override}: expected KEY=VALUE, as in select.fraction=0.3")
    if len(path) > MAX_DEPTH:
        raise UserError(f"{override}: found a key of {len(path)} names; expected at most {MAX_DEPTH}")
    try:
        return Override(text, path, read_document(value, comments=False).value)
    except YamlError as error:
        raise UserError(f"{override}: the value is invalid YAML: {error.problem}") from None


def _apply(values: dict[str, Any], override: Override) -> None:
    """Set one value in nested dicts."""
    target = values
    for depth, name in enumerate(override.path[:-1], 1):
        if target.get(name) is None:
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            raise UserError(f"{override}: {'.'.join(override.path[:depth])} is not a section")
    target[override.path[-1]] = copy.deepcopy(override.value)
