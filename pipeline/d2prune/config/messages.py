"""Describe what is wrong with a configuration, key by key, in one line each.

Ranges are read from the types of the model, so messages and docs/configuration.md agree with it.
"""

import difflib
import reprlib
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from d2prune.config.section import OptionError
from d2prune.config.yaml_text import Path, escape, read_scalar

_EXAMPLES = {
    "input": "s3://pool/{00000000..00000012}.tar",
    "work_dir": "s3://scratch/run-1",
    "output": "s3://filtered/run-1",
    "select": "{fraction: 0.3}",
}
_MAX_FAULTS = 3
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 4, 4
_SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 80, 40, 80


@dataclass(frozen=True)
class Fault:
    """One wrong key: its path, and the message, which starts with the key."""

    path: Path
    text: str
    missing: bool = False


def list_faults(error: pydantic.ValidationError, model: type[BaseModel], values: Any) -> list[Fault]:
    """Describe each wrong key once, in the order of the model.

    Args:
        error: what validation raised.
        model: the model that was validated.
        values: the plain values.
    """
    faults: dict[Path, Fault] = {}
    for detail in error.errors(include_url=False):
        path = _find_path(detail["loc"], values, detail["type"])
        if path not in faults:
            faults[path] = _describe(detail, path, model)
    return list(faults.values())[:_MAX_FAULTS]


def _find_path(loc: Sequence[str | int], values: Any, kind: str) -> Path:
    """Return the part of a location that is in the values; the rest names members of a union."""
    path: list[str | int] = []
    for part in loc:
        present = (isinstance(values, dict) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        )
        if not present:
            return (*path, part) if kind == "missing" else tuple(path)
        values = values[part]
        path.append(part)
    return tuple(path)


def _describe(detail: Any, path: Path, model: type[BaseModel]) -> Fault:
    names = [str(part) for part in path]
    name = escape(".".join(names), 80)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, names[:-1])
        close = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.5)
        nearest = ".".join([*names[:-1], *close])
        hint = f"did you mean {nearest}?" if close else f"expected one of {', '.join(known)}"
        return Fault(path, f"unknown key {name}; {hint}")
    if detail["type"] == "missing":
        example = f"; expected, for example, {name}: {_EXAMPLES[name]}" if name in _EXAMPLES else ""
        return Fault(path, f"{name} is missing{example}", missing=True)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, OptionError):
        return Fault(tuple(cause.key.split(".")), escape(str(cause), 400))
    found = detail["input"]
    if detail["type"] == "invalid_key" or (detail["loc"][-1:] == ("[key]",) and not isinstance(found, str)):
        section = escape(".".join(names[:-1]), 80)
        return Fault(path, f"{f'{section}: ' if section else ''}found {show(found)} as a key; expected text")
    if detail["type"] == "value_error":
        shown = "" if isinstance(found, dict | list) else f" = {show(found)}"
        return Fault(path, f"{name or 'configuration'}{shown}: {escape(str(cause), 400)}")
    expected = describe_type(_find_type(model, names))
    hint = "; 0.3 means 30%" if name.endswith("fraction") else ""
    if isinstance(found, str) and not isinstance(_read_number(found), str):
        hint = ", without quotes"
    elif isinstance(found, dict) and "text" in expected:
        hint = "; put text with braces in quotes"
    return Fault(path, f"{name} = {show(found)}: expected {expected}{hint}")


def _read_number(text: str) -> Any:
    try:
        return read_scalar(text)
    except ValueError:
        return text


def show(value: Any) -> str:
    """Return a value as short text on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of many digits"  # Python refuses to convert more than 4,300


def _known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Keys of the section at `path`."""
    for name in path:
        section = model.model_fields[name].annotation
        assert isinstance(section, type) and issubclass(section, BaseModel)
        model = section
    return list(model.model_fields)


def _find_type(model: type[BaseModel], names: Sequence[str]) -> Any:
    """Return the type of a key, with its constraints; of a list or mapping, that of its values."""
    kind: Any = model
    for name in names:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = field_type(kind.model_fields[name])
            continue
        inner = [item for item, _ in _list_members(kind) if get_origin(item) in (list, dict)]
        if not inner:
            break
        kind = get_args(inner[0])[-1]
    return kind


def field_type(field: FieldInfo) -> Any:
    """Return the annotation of a field together with its constraints."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def describe_type(kind: Any) -> str:
    """Return what a type accepts, such as `a whole number from 1 to 1,024, or null`."""
    words = [_describe_member(item, constraints) for item, constraints in _list_members(kind)]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, or {words[-1]}"


def _list_members(kind: Any) -> list[tuple[Any, list[Any]]]:
    """Return the members of a union, or the type itself, each with its constraints."""
    if get_origin(kind) is Annotated:
        inner, *given = get_args(kind)
        constraints = [
            item for one in given for item in (one.metadata if isinstance(one, FieldInfo) else [one])
        ]
        return [(member, [*own, *constraints]) for member, own in _list_members(inner)]
    if get_origin(kind) in (Union, types.UnionType):
        return [member for item in get_args(kind) for member in _list_members(item)]
    return [(kind, [])]


def _describe_member(kind: Any, constraints: Sequence[Any]) -> str:
    if kind is int or kind is float:
        return f"{'a whole number' if kind is int else 'a number'}{_describe_range(constraints)}"
    if get_origin(kind) is Literal:
        names = [str(item) for item in get_args(kind)]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    if get_origin(kind) is list:
        return f"a list of {describe_type(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"a mapping of names to {describe_type(get_args(kind)[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a section with keys such as {next(iter(kind.model_fields))}"
    return {bool: "true or false", str: "text", type(None): "null"}.get(kind, "another value")


def _describe_range(constraints: Sequence[Any]) -> str:
    """Return the bounds, such as ` from 1 to 1,024` or ` above 0 and up to 1`."""
    bounds = {
        name: format_number(getattr(constraint, name))
        for constraint in constraints
        for name in ("ge", "gt", "le", "lt")
        if hasattr(constraint, name)
    }
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']} to {bounds['le']}"
    words = {"ge": "at least", "gt": "above", "le": "up to", "lt": "below"}
    found = [f"{words[name]} {bounds[name]}" for name in words if name in bounds]
    return f" {' and '.join(found)}" if found else ""


def format_number(value: float) -> str:
    """Return a bound as text: powers of two that no one types in full, as such."""
    for power in (22, 63):
        for sign, mark in ((1, ""), (-1, "-")):
            if value == sign * 2**power:
                return f"{mark}2**{power}"
    if value == 2**63 - 1:
        return "2**63 - 1"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
