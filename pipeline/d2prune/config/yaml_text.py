"""Read YAML into plain values by the core schema of YAML 1.2, and record the line of every value.

PyYAML resolves values by YAML 1.1, where `010` is 8, `yes` is true and `1:30` is 90; of two equal
keys it drops the first silently, and it recurses without a limit. So only its event parser is used
here. Anchors work, within a limit on what aliases expand to; tags and merge keys are refused.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Keys and list indexes that lead to a value."""

MAX_DEPTH = 20
MAX_VALUES = 500_000
"""Limit on the values of a document after aliases are expanded."""
_MAX_DIGITS = 100

_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INFINITY = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class YamlError(Exception):
    """Text that cannot be read: the problem in one line, and its place (both counted from 1)."""

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        self.problem, self.line, self.column = escape(problem, 300), line, column
        super().__init__(self.problem)


def escape(text: str, limit: int) -> str:
    """Return text for a message: on one line, without control characters, and cut at a limit."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:limit])
    return shown if len(text) <= limit else f"{shown}..."


@dataclass(frozen=True)
class Document:
    """The value of a document, and the line of every value in it, by path."""

    value: Any
    lines: Mapping[Path, int]


def read_scalar(text: str) -> Any:
    """Return what unquoted text stands for: null, a boolean, a number, or the text itself.

    Raises:
        ValueError: a number with too many digits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if match := _INFINITY.fullmatch(text):
        return float(f"{match[1]}inf")
    if not (_INTEGER.fullmatch(text) or _BASED.fullmatch(text)):
        return float(text) if _FLOAT.fullmatch(text) else text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"found a number of {len(text)} digits; expected at most {_MAX_DIGITS}")
    return int(text, 10 if _INTEGER.fullmatch(text) else 0)


def read_document(text: str, comments: bool = True) -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        comments: False refuses text after the value, so that ` #` does not end it unnoticed.

    Raises:
        YamlError: invalid YAML, or what this reader refuses: a key given twice, keys that are not
            text, several documents, tags, merge keys, deep nesting.
    """
    reader = _Reader(text)
    try:
        value = reader.read()
    except yaml.YAMLError as error:
        raise _translate(error, text) from error
    if not comments and (rest := text[reader.end :].strip()):
        raise YamlError(f"found a comment ({rest[:40]}); put a value that contains ` #` in quotes")
    return Document(value, reader.lines)


def _translate(error: yaml.YAMLError, text: str) -> YamlError:
    """Position and problem in one line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return YamlError(f"found the character {chr(error.character)!r}; expected printable text", line)
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return YamlError(" ".join(str(error).split()))
    return YamlError(str(problem), mark.line + 1, mark.column + 1)


@dataclass
class _Reader:
    """Builds the value of a document from the parser's events.

    Attributes:
        lines: the line of every value.
        end: index of the text after the last value.
    """

    text: str
    lines: dict[Path, int] = field(default_factory=dict)
    end: int = 0
    _anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)
    _count: int = 0
    _events: Iterator[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._events = iter(yaml.parse(self.text, Loader=yaml.SafeLoader))

    def _next(self) -> Any:
        return next(self._events)

    def _extend(self, event: Any) -> None:
        self.end = max(self.end, event.end_mark.index)

    def read(self) -> Any:
        self._next()  # start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        value = self._read_value(self._next(), ())
        self._next()  # end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _fault("found a second document; expected one", after)
        return value

    def _read_value(self, event: Any, path: Path) -> Any:
        self.lines[path] = event.start_mark.line + 1
        before = self._count
        self._count += 1
        if isinstance(event, yaml.AliasEvent):
            value = self._expand(event, path)
        elif event.tag not in (None, "!"):
            raise _fault(f"{_name(path)}found the tag {_show_tag(event)}; expected a plain value", event)
        elif isinstance(event, yaml.ScalarEvent):
            value = self._read_scalar(event, path)
        elif len(path) >= MAX_DEPTH:
            raise _fault(f"found values nested more than {MAX_DEPTH} deep", event)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._read_mapping(path)
        else:
            value = self._read_list(path)
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._anchors[event.anchor] = value, self._count - before
        self._extend(event)
        return value

    def _expand(self, event: Any, path: Path) -> Any:
        if event.anchor not in self._anchors:
            raise _fault(f"{_name(path)}found the alias *{event.anchor} before its anchor is complete", event)
        value, size = self._anchors[event.anchor]
        self._count += size
        if self._count > MAX_VALUES:
            raise _fault(f"found aliases that expand to more than {MAX_VALUES:,} values", event)
        return copy.deepcopy(value)

    def _read_scalar(self, event: Any, path: Path) -> Any:
        if event.style is not None or not event.implicit[0]:
            return _join_surrogates(event.value)
        try:
            return read_scalar(event.value)
        except ValueError as error:
            raise _fault(f"{_name(path)}{error}", event) from error

    def _read_list(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            values.append(self._read_value(event, (*path, len(values))))
        self._extend(event)
        return values

    def _read_mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._read_key(event, path)
            line = event.start_mark.line + 1
            if key in values:
                name = ".".join(map(str, (*path, key)))
                raise YamlError(
                    f"key {name} is given twice, in lines {lines[key]} and {line}; expected it once"
                )
            lines[key] = line
            values[key] = self._read_value(self._next(), (*path, key))
            self.lines[(*path, key)] = line
        self._extend(event)
        return values

    def _read_key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!"):
            kind = type(event).__name__.removesuffix("Event").removesuffix("Start").lower()
            found = f"the tag {_show_tag(event)}" if isinstance(event, yaml.ScalarEvent) else f"a {kind}"
            raise _fault(f"{_name(path)}found {found} as a key; expected text", event)
        plain = event.style is None and event.implicit[0]
        if plain and event.value == "<<":
            raise _fault(f"{_name(path)}found a merge key (<<); expected the keys themselves", event)
        if plain and not isinstance(self._read_scalar(event, path), str):
            raise _fault(
                f"{_name(path)}found {event.value or 'null'} as a key; expected text, in quotes if need be",
                event,
            )
        return _join_surrogates(event.value)


def _join_surrogates(text: str) -> str:
    """Join the two escapes that JSON writes for a character beyond U+FFFF."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _show_tag(event: Any) -> str:
    return str(event.tag).replace("tag:yaml.org,2002:", "!!")


def _name(path: Path) -> str:
    return f"{'.'.join(map(str, path))}: " if path else ""


def _fault(problem: str, event: Any) -> YamlError:
    return YamlError(problem, event.start_mark.line + 1, event.start_mark.column + 1)
