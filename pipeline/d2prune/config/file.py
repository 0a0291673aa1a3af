"""Read a configuration file, and describe validation errors in one line.

Reads YAML and overrides such as `select.fraction=0.3` into plain values; `model.py` validates them.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel

from d2prune.errors import UserError

_EXAMPLES = {
    "input": "s3://pool/{00000000..00000012}.tar",
    "work_dir": "s3://scratch/run-1",
    "output": "s3://filtered/run-1",
    "select": "{fraction: 0.3}",
}


def read(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Read the values of a YAML file and apply the overrides.

    Raises:
        UserError: one line with the file or the override, and what was expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: invalid YAML: {_describe_yaml_error(error)}") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise UserError(f"{path}: expected keys such as input, work_dir and output; found {found}")
    for override in overrides:
        _apply_override(values, override)
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Set `a.b=c` in nested dicts; the value is parsed as YAML."""
    path, equals, text = override.partition("=")
    names = path.split(".")
    if not equals or not all(names):
        raise UserError(f"--set {override}: expected KEY=VALUE, as in select.fraction=0.3")
    target = values
    for name in names[:-1]:
        inner = target.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {override}: {name} is not a section")
        target = inner
    try:
        target[names[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"--set {override}: the value is invalid YAML: {_describe_yaml_error(error)}"
        ) from None


def _describe_yaml_error(error: yaml.YAMLError) -> str:
    """Position and problem in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def describe_errors(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """Describe the first errors in one line, with the nearest known key for an unknown one."""
    lines = []
    for detail in error.errors()[:3]:
        names = [str(part) for part in detail["loc"]]
        path = ".".join(names)
        if detail["type"] == "extra_forbidden":
            known = _known_keys(model, names[:-1])
            close = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.5)
            nearest = ".".join([*names[:-1], *close])
            hint = f"did you mean {nearest}?" if close else f"expected one of {', '.join(known)}"
            lines.append(f"unknown key {path}; {hint}")
        elif detail["type"] == "missing":
            example = f"; expected, for example, {path}: {_EXAMPLES[path]}" if path in _EXAMPLES else ""
            lines.append(f"{path} is missing{example}")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(detail["input"], dict) else f" = {detail['input']!r}"
            hint = "; 0.3 means 30%" if names and names[-1].endswith("fraction") else ""
            lines.append(f"{path or 'configuration'}{shown}: {message[0].lower()}{message[1:]}{hint}")
    return "; ".join(dict.fromkeys(lines))


def _known_keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Keys of the section at `path`; none if it is not a section."""
    for name in path:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
