"""Base of all sections of a configuration, and the types of their keys.

Field descriptions are user documentation: docs/configuration.md is generated from them. Types are
strict: a number in quotes, or a boolean where a number belongs, is an error. Every number is finite
and bounded, so that no value passes here and fails in a later stage.
"""

import os
from numbers import Integral, Real
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

MAX_TEXT = 4_096
"""Characters of a text, the length of the longest path on Linux."""
MAX_SEED = 2**63 - 1
MAX_COUNT = 2**63 - 1


class OptionError(ValueError):
    """A fault of one option that only a validator of the whole configuration can see."""

    def __init__(self, key: str, problem: str) -> None:
        """Compose the message: the option, then the problem."""
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem


class Section(BaseModel):
    """A section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _accept_empty(cls, values: Any) -> Any:
        """Read a section without keys, such as one whose keys are all commented out, as an empty one."""
        return {} if values is None else values


def _read_whole(value: Any) -> Any:
    """Convert `1e6` to an int, and numbers of numpy to Python's."""
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and not isinstance(value, bool) else value


def _read_real(value: Any) -> Any:
    """Convert numbers of numpy to Python's."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool | int) else value


def _check_text(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueError(f"found {len(text):,} characters; expected at most {MAX_TEXT:,}")
    wrong = next((char for char in text if ord(char) < 32 or 127 <= ord(char) < 160), None)
    if wrong is not None:
        raise ValueError(f"found the control character {wrong!r}; expected printable text")
    if any(0xD800 <= ord(char) < 0xE000 for char in text):
        raise ValueError("found a lone surrogate; expected valid Unicode")
    return text


def _check_path(text: str) -> str:
    """Refuse an empty name, and expand `~`; environment variables are not expanded."""
    if not text.strip():
        raise ValueError("found an empty name; expected a path or a URL")
    prefix = "local-dir:" if text.startswith("local-dir:") else ""
    path = text.removeprefix(prefix)
    return prefix + os.path.expanduser(path) if path.startswith("~") else text


def _read_empty_mapping(value: Any) -> Any:
    return {} if value is None else value


Whole = Annotated[int, BeforeValidator(_read_whole)]
Number = Annotated[float, BeforeValidator(_read_real)]
Text = Annotated[str, AfterValidator(_check_text)]
Location = Annotated[Text, AfterValidator(_check_path)]
EmptyIfNull = BeforeValidator(_read_empty_mapping)
