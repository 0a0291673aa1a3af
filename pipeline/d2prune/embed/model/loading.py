"""Load a CLIP model and its tokenizer through open_clip, and map its many exceptions to ours."""

import contextlib
import json
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from d2prune.embed.model.sources import ModelSource
from d2prune.embed.model.tokenizer import CaptionTokenizer
from d2prune.errors import InfrastructureError, UserError
from d2prune.extras import require

log = logging.getLogger(__name__)


def load_model(
    open_clip: Any, source: ModelSource, precision: str, device: str
) -> tuple[Any, Callable[[Any], Any]]:
    """Load a model in inference mode.

    Returns:
        The model, and open_clip's preprocessing: RGB image -> float32 [3, H, W] tensor.

    Raises:
        UserError: the checkpoint does not fit the model, or is not a checkpoint.
        InfrastructureError: the weights could not be downloaded, or exceed the device's memory.
    """
    import torch

    _register(open_clip, source)
    shown = f"{source.name} with {source.pretrained or 'its own weights'}"
    try:
        with warnings.catch_warnings(record=True) as caught, _quiet_downloads():
            warnings.simplefilter("always", UserWarning)
            model, _, transform = open_clip.create_model_and_transforms(
                source.name,
                pretrained=source.pretrained,
                precision=precision,
                device=device,
                require_pretrained=True,
            )
    except (pickle.UnpicklingError, EOFError) as error:
        raise UserError(
            f"embed.pretrained: {shown}: not a checkpoint of plain weights: {format_error(error)}"
        ) from error
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        if "download" in str(error) or "HF Hub" in str(error):
            raise InfrastructureError(
                f"{shown}: the weights cannot be downloaded; embed.pretrained also takes a checkpoint file "
                f"({format_error(error)})"
            ) from error
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise InfrastructureError(f"{shown}: {format_error(error)}") from error
        raise UserError(f"embed.model: {shown}: cannot be loaded: {format_error(error)}") from error
    except Exception as error:
        # The exception type of safetensors derives from Exception only.
        if type(error).__name__ == "SafetensorError":
            raise UserError(
                f"embed.pretrained: {shown}: not a safetensors file: {format_error(error)}"
            ) from error
        raise
    for warning in caught:
        log.warning("%s: %s", source.name, format_error(warning.message))
    return model.eval(), transform


def _register(open_clip: Any, source: ModelSource) -> None:
    """Register a model's own config, unless it is: open_clip reads its 150 files again, in 20 ms."""
    if source.config is None:
        return
    if open_clip.get_model_config(source.config.stem) != json.loads(source.config.read_bytes()):
        open_clip.add_model_config(source.config)


def load_tokenizer(open_clip: Any, source: ModelSource) -> CaptionTokenizer:
    """Load a model's tokenizer.

    Raises:
        UserError: it needs a package that is missing, as a MissingExtraError if an extra brings it.
        InfrastructureError: its vocabulary could not be downloaded.
    """
    _register(open_clip, source)
    try:
        with _quiet_downloads():
            tokenizer = open_clip.get_tokenizer(source.name)
    except ImportError as error:
        need = f"embed.model: the tokenizer of {source.name}"
        for module in ("transformers", "sentencepiece"):
            require(module, need)
        raise UserError(f"{need} needs a package that is not installed: {format_error(error)}") from error
    except OSError as error:
        # transformers raises OSError when the hub does not answer or lacks the files.
        raise InfrastructureError(
            f"the tokenizer of {source.name} cannot be loaded: {format_error(error)}"
        ) from error
    return CaptionTokenizer(tokenizer, open_clip.SimpleTokenizer)


@contextlib.contextmanager
def _quiet_downloads() -> Iterator[None]:
    """Discard what the hub's client and open_clip log about a download; the error has the cause.

    The client logs each of up to six attempts, twice: it has its own handler.
    """
    hub, root = logging.getLogger("huggingface_hub"), logging.getLogger()
    before = hub.level
    hub.setLevel(logging.CRITICAL)
    root.addFilter(_is_not_about_downloads)
    try:
        yield
    finally:
        hub.setLevel(before)
        root.removeFilter(_is_not_about_downloads)


def _is_not_about_downloads(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Failed to download")


def format_error(error: object) -> str:
    """Return type and message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
