"""A configuration file as plain values, and what is wrong with them in one line.

Reads YAML and `a.b=c` overrides. `config.py` says which keys there are.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel

from d2prune.errors import UserError

_NEEDED = {
    "input": "s3://pool/{00000000..00000012}.tar",
    "work_dir": "s3://scratch/run-1",
    "output": "s3://filtered/run-1",
    "select": "{fraction: 0.3}",
}


def read(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Values of a YAML file, with the overrides applied.

    Raises:
        UserError: one line naming the file or the override, and what was expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the configuration cannot be read: {error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {_yaml_fault(error)}") from error
    if not isinstance(values, dict):
        got = "an empty file" if values is None else type(values).__name__
        raise UserError(f"{path}: expected keys such as input, work_dir and output; got {got}")
    for override in overrides:
        _apply(values, override)
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    """Set `a.b=c` in nested dicts; the value is read as YAML."""
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
        raise UserError(f"--set {override}: the value is not YAML: {_yaml_fault(error)}") from error


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Where and what, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def explain(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """The first faults in one line, with the nearest known name for an unknown key."""
    lines = []
    for fault in error.errors()[:3]:
        names = [str(part) for part in fault["loc"]]
        path = ".".join(names)
        if fault["type"] == "extra_forbidden":
            known = _known_names(model, names[:-1])
            close = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {'.'.join([*names[:-1], close[0]])}?"
                if close
                else f"known here: {', '.join(known)}"
            )
            lines.append(f"unknown key {path}; {hint}")
        elif fault["type"] == "missing":
            example = f"; expected such as {path}: {_NEEDED[path]}" if path in _NEEDED else ""
            lines.append(f"{path} is missing{example}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r}"
            hint = "; 0.3 means 30 %" if names and names[-1].endswith("fraction") else ""
            lines.append(f"{path or 'configuration'}{shown}: {message[0].lower()}{message[1:]}{hint}")
    return "; ".join(dict.fromkeys(lines))


def _known_names(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for name in path:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
