"""Short names of the models in `embed.models`. Text only; no model is loaded.

A model is written `ARCHITECTURE/TAG` or `ARCHITECTURE/CHECKPOINT`, or is one that includes its
weights: `hf-hub:...`, a folder (a path that starts with `/`, `./` or `../`), or `demo`. Names
become columns and file names, so they consist of letters, digits and `_`.
"""

import os
import re
from collections.abc import Mapping, Sequence

_FOLDER_PREFIXES = ("/", "./", "../", "~", "local-dir:")
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_RESERVED = frozenset({"score"})
"""The column would be `clip_score`, which every pool has."""


def split_model(text: str) -> tuple[str, str | None]:
    """Split `ARCHITECTURE/TAG` into the values of `embed.model` and `embed.pretrained`."""
    if text.startswith((*_FOLDER_PREFIXES, "hf-hub:")):
        return _expand(text), None
    model, _, pretrained = text.partition("/")
    return model, _expand(pretrained) or None


def _expand(path: str) -> str:
    return os.path.expanduser(path) if path.startswith("~") else path


def name_models(models: Sequence[object]) -> dict[str, str]:
    """Name models: `ViT-B-32/openai` becomes b32, and `hf-hub:org/Model` becomes model.

    Raises:
        ValueError: an entry is not a string, or two models would get the same name.
    """
    named: dict[str, str] = {}
    for text in models:
        if not isinstance(text, str) or not text:
            raise ValueError(f"expected strings such as ViT-B-32/openai; found {text!r}")
        model, _ = split_model(text)
        name = re.sub(r"[^a-z0-9]+", "", model.rstrip("/").rpartition("/")[2].lower().removeprefix("vit-"))
        if name in named:
            raise ValueError(
                f"{named[name]} and {text} would both be named {name}; name them: {{one: ..., two: ...}}"
            )
        named[name] = text
    return named


def check_names(models: Mapping[str, str]) -> None:
    """Check that every name can be part of a column name.

    Raises:
        ValueError: a name cannot, or a model is empty.
    """
    for name, text in models.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ValueError(
                f"models: invalid name {name!r}; expected letters, digits and _, and not `score`"
            )
        if not text:
            raise ValueError(f"models.{name} is empty; expected a model such as ViT-B-32/openai")
