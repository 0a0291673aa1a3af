"""`embed.models` in words: what a user writes for several models, and what each is then called. Pure text, no model.

A model is `ARCHITECTURE/TAG` or `ARCHITECTURE/CHECKPOINT`, or something that brings its own
weights: `hf-hub:...`, a folder (a path that starts with `/`, `./` or `../`), `demo`. Names become
columns and files: letters, digits, `_`.
"""

import re
from collections.abc import Mapping, Sequence

_FOLDERS = ("/", "./", "../", "~", "local-dir:")
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_TAKEN = frozenset({"score"})
"""`clip_score` is there anyway."""


def split(text: str) -> tuple[str, str | None]:
    """(model, pretrained), as `embed.model` and `embed.pretrained` say it."""
    if text.startswith((*_FOLDERS, "hf-hub:")):
        return text, None
    model, _, pretrained = text.partition("/")
    return model, pretrained or None


def named(models: Sequence[object]) -> dict[str, str]:
    """A list of models with short names: `ViT-B-32/openai` is b32, `hf-hub:org/Model` is model.

    Raises:
        ValueError: an entry is no text, or two would be called the same.
    """
    found: dict[str, str] = {}
    for text in models:
        if not isinstance(text, str) or not text:
            raise ValueError(f"expected texts such as ViT-B-32/openai, got {text!r}")
        model, _ = split(text)
        name = re.sub(r"[^a-z0-9]+", "", model.rstrip("/").rpartition("/")[2].lower().removeprefix("vit-"))
        if name in found:
            raise ValueError(
                f"{found[name]} and {text} would both be called {name}; give names: {{one: ..., two: ...}}"
            )
        found[name] = text
    return found


def check(models: Mapping[str, str]) -> None:
    """Refuses names that cannot be a column's.

    Raises:
        ValueError: names it.
    """
    for name, text in models.items():
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"models: {name!r} cannot be a name; expected letters, digits and _, and not `score`"
            )
        if not text:
            raise ValueError(f"models.{name} is empty; expected a model such as ViT-B-32/openai")
