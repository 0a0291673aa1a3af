"""Find the CLIP model that `embed.model` and `embed.pretrained` name, and identify it for fingerprints.

Four ways to name a model: an open_clip architecture with a `pretrained` tag or checkpoint file;
`hf-hub:org/name`; a folder with a model's config and weights; `demo`, the bundled model. Weights must
always be named, since open_clip itself would continue with random ones.
"""

import difflib
import fnmatch
import functools
import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2prune.console import print_line
from d2prune.errors import UserError
from d2prune.extras import require

log = logging.getLogger(__name__)

DEMO = "demo"
HUB_PREFIX = "hf-hub:"
LOCAL_DIR_PREFIX = "local-dir:"
LIST_MODELS = "d2prune models"
"""Command that lists the names; shown in error messages."""

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class ModelSource:
    """A model that exists, in open_clip's terms.

    Attributes:
        name: for `open_clip.create_model_and_transforms`.
        pretrained: a tag or a file; None where the name alone identifies the weights.
        config: a config file to register with open_clip first.
    """

    name: str
    pretrained: str | None
    config: Path | None = None


def import_open_clip() -> Any:
    """Import open_clip, after the shim that CPU-only machines need. Takes seconds: not for module import.

    Raises:
        MissingExtraError: it is not installed.
    """
    for module in ("torch", "open_clip"):
        require(module, "a CLIP model (embed.model)")
    from d2prune import torchvision_shim

    torchvision_shim.install_if_needed()
    import open_clip

    return open_clip


def print_models(pattern: str | None = None) -> None:
    """Print every `MODEL/TAG` that open_clip can load by name and that matches.

    Args:
        pattern: part of a name, or a pattern of `fnmatch`, in upper or lower case; None: all.

    Raises:
        UserError: none matches.
    """
    known = [f"{name}/{tag}" for name, tag in import_open_clip().list_pretrained()]
    wanted = (pattern or "").lower()
    wanted = wanted if any(mark in wanted for mark in "*?[") else f"*{wanted}*"
    found = [name for name in known if fnmatch.fnmatchcase(name.lower(), wanted)]
    if not found:
        raise UserError(f"models {pattern}: found no such model{_suggest(str(pattern), known)}")
    for name in found:
        print_line(name)


def resolve(model: str, pretrained: str | None) -> ModelSource:
    """Find a model.

    Args:
        model: see `embed.model`.
        pretrained: see `embed.pretrained`.

    Raises:
        UserError: unknown model or tag (the message has the nearest known one), missing file, or no
            weights named.
    """
    if model == DEMO:
        if pretrained is not None:
            raise UserError(
                f"embed.pretrained = {pretrained}: the demo model has its own weights; remove this option"
            )
        return _resolve_demo()
    folder = Path(model.removeprefix(LOCAL_DIR_PREFIX))
    if model.startswith(LOCAL_DIR_PREFIX) or (folder.is_dir() and os.sep in model):
        return _resolve_folder(folder, pretrained)
    if model.startswith(HUB_PREFIX):
        if pretrained is not None:
            raise UserError(
                f"embed.pretrained = {pretrained}: {model} has its own weights; remove this option"
            )
        return ModelSource(model, None)
    return _resolve_name(model, pretrained)


def make_absolute(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """Return the same names with absolute local paths, for workers that start in another folder."""
    if model != DEMO and os.sep in model and os.path.isdir(model.removeprefix(LOCAL_DIR_PREFIX)):
        model = os.path.abspath(model.removeprefix(LOCAL_DIR_PREFIX))
    if pretrained and os.path.isfile(pretrained):
        pretrained = os.path.abspath(pretrained)
    return model, pretrained


def identity(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """Return what identifies the weights: open_clip's names, with hashes instead of paths for local files.

    A file is hashed again only if its size or modification time changed.

    Returns:
        (model, pretrained), such as `ViT-B-32` and `openai` or `sha256:...`.

    Raises:
        UserError: see `resolve`.
    """
    source = resolve(model, pretrained)
    name, weights = source.name, source.pretrained
    if name.startswith(LOCAL_DIR_PREFIX):
        folder = Path(name.removeprefix(LOCAL_DIR_PREFIX))
        files = sorted(path for path in folder.iterdir() if path.suffix in (".json", *_CHECKPOINTS))
        name = " ".join(f"{path.name} sha256:{_hash_file(path)}" for path in files)
    elif source.config is not None:
        name = f"{name} sha256:{_hash_file(source.config)}"
    if weights is not None and os.path.isfile(weights):
        weights = f"sha256:{_hash_file(Path(weights))}"
    return name, weights


def _resolve_demo() -> ModelSource:
    from d2prune import bundled

    config, weights = bundled.MODEL_DIR / f"{bundled.MODEL_NAME}.json", bundled.MODEL_WEIGHTS
    for path in (config, weights):
        if not path.is_file():
            raise UserError(f"embed.model = demo: {path} is missing from this installation")
    return ModelSource(bundled.MODEL_NAME, str(weights), config)


def _resolve_folder(folder: Path, pretrained: str | None) -> ModelSource:
    if not folder.is_dir():
        raise UserError(f"embed.model = {folder}: folder does not exist")
    if pretrained is not None:
        raise UserError(
            f"embed.pretrained = {pretrained}: the folder {folder} has its own weights; remove this option"
        )
    weights = sorted(path for path in folder.iterdir() if path.suffix in _CHECKPOINTS)
    if (folder / "open_clip_config.json").is_file() and weights:
        return ModelSource(f"{LOCAL_DIR_PREFIX}{folder}", None)
    configs = sorted(folder.glob("*.json"))
    if len(configs) != 1 or len(weights) != 1:
        raise UserError(
            f"embed.model = {folder}: expected open_clip_config.json and weights, or one .json and one "
            f"checkpoint ({', '.join(_CHECKPOINTS)}); found {len(configs)} and {len(weights)}"
        )
    return ModelSource(configs[0].stem, str(weights[0]), configs[0])


def _resolve_name(model: str, pretrained: str | None) -> ModelSource:
    open_clip = import_open_clip()
    name = model.replace("/", "-")
    known = open_clip.list_models()
    if name not in known:
        raise UserError(
            f"embed.model = {model}: unknown{_suggest(name, known)}; list them with {LIST_MODELS}"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not pretrained:
        raise UserError(
            f"embed.pretrained is missing: without it, {model} would have random weights; "
            f"expected a checkpoint file{' or one of ' + ', '.join(tags) if tags else ''}"
        )
    known_weights = open_clip.get_pretrained_cfg(name, pretrained)
    if known_weights:
        # With the other activation, open_clip only warns and then computes slightly wrong embeddings.
        with_gelu = bool(known_weights.get("quick_gelu", False))
        twin = f"{name}-quickgelu" if with_gelu else name.removesuffix("-quickgelu")
        differs = with_gelu != bool(open_clip.get_model_config(name).get("quick_gelu", False))
        if differs and twin in known and twin != name:
            _log_twin(model, pretrained, twin)
            name = twin
        return ModelSource(name, pretrained)
    if os.path.isfile(pretrained):
        return ModelSource(name, os.path.abspath(pretrained))
    if os.sep in pretrained or pretrained.endswith(_CHECKPOINTS):
        raise UserError(f"embed.pretrained = {pretrained}: file does not exist on this machine")
    raise UserError(
        f"embed.pretrained = {pretrained}: {model} has no such weights{_suggest(pretrained, tags)}; "
        f"known: {', '.join(tags) or 'none, give a checkpoint file'}; list all with {LIST_MODELS}"
    )


@functools.cache
def _log_twin(model: str, pretrained: str, twin: str) -> None:
    log.info("embed.model = %s: using %s, which has the activation that %s needs", model, twin, pretrained)


def _suggest(name: str, known: Iterable[str]) -> str:
    folded = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.4)
    return f", did you mean {folded[close[0]]}?" if close else ""


def _hash_file(path: Path) -> str:
    state = path.stat()
    return _sha256(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size: int, _mtime_ns: int) -> str:
    if size > 1 << 30:
        log.info("hashing %s (%.1f GB)", path, size / 1e9)
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
