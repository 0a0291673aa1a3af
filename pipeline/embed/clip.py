"""The CLIP encoder: a batch of pixels and captions -> unit embeddings and their cosine.

One process, one model, one device. The same batch gives the same bits: inference mode, no random weights, and on a CPU
one thread, since a matrix product split over other thread counts may round differently. Embeddings equal those of
open_clip's own `encode_image(..., normalize=True)` loop over the same batches.
"""

import logging
import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.embed.models import ModelSource, import_open_clip
from pipeline.errors import D2PruneError, InfrastructureError, UserError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A batch of N samples in D dimensions.

    `image_ND` and `text_ND` are float16 of unit norm; `clip_score_N` is the float32 cosine of the unrounded float32
    embeddings, summed in float64.
    """

    image_ND: npt.NDArray[np.float16]
    text_ND: npt.NDArray[np.float16]
    clip_score_N: npt.NDArray[np.float32]


class ClipEncoder:
    """A loaded model with its own preprocessing and tokenizer.

    Attributes:
        dimension: D of the joint embedding.
        image_size: shorter side, in pixels, that preprocessing resizes to.
        transform: open_clip's evaluation preprocessing, RGB image -> float32 [3, H, W] tensor; may be pickled.
        precision: fp32, bf16 or fp16, `auto` resolved.
        device: `cpu` or `cuda`.
    """

    def __init__(self, source: ModelSource, precision: str = "auto", device: str = "auto", threads: int = 1) -> None:
        """Loads the model.

        Args:
            source: from `models.resolve`.
            precision: one of `PRECISIONS`; auto is fp32 on a CPU, bf16 on a GPU that has it, else fp16.
            device: `auto` takes a GPU if there is one.
            threads: torch threads on a CPU; other counts than 1 may change the last bits.

        Raises:
            UserError: the checkpoint does not fit the model, or is no checkpoint.
            InfrastructureError: weights could not be downloaded.
        """
        open_clip = import_open_clip()
        import torch

        self._torch = torch
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if self.device == "cpu":
            torch.set_num_threads(threads)
        self.precision = self._resolve_precision(precision)
        if source.config is not None:
            open_clip.add_model_config(source.config)
        self._model, self.transform = self._load(open_clip, source)
        self._tokenizer: Callable[[list[str]], Any] = open_clip.get_tokenizer(source.name)
        self._input_dtype = open_clip.get_input_dtype(self.precision)
        size = getattr(self._model.visual, "image_size", 224)
        self.image_size = int(max(size)) if isinstance(size, (tuple, list)) else int(size)
        with torch.inference_mode():
            self.dimension = int(self._model.encode_text(self.tokenize(["a"])).shape[-1])

    def _resolve_precision(self, precision: str) -> str:
        if precision not in PRECISIONS:
            raise UserError(f"embed.precision = {precision}: expected one of {', '.join(PRECISIONS)}")
        if precision != "auto":
            return precision
        if self.device == "cpu":
            return "fp32"
        return "bf16" if self._torch.cuda.is_bf16_supported() else "fp16"

    def _load(self, open_clip: Any, source: ModelSource) -> tuple[Any, Callable[[Any], Any]]:
        wanted = f"{source.name} with {source.pretrained or 'its own weights'}"
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                model, _, transform = open_clip.create_model_and_transforms(
                    source.name,
                    pretrained=source.pretrained,
                    precision=self.precision,
                    device=self.device,
                    require_pretrained=True,
                )
        except (pickle.UnpicklingError, EOFError) as error:
            raise UserError(f"embed.pretrained: {wanted}: not a checkpoint of plain weights: {_line(error)}") from error
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            if "download" in str(error) or "HF Hub" in str(error):
                raise InfrastructureError(f"{wanted}: {_line(error)}") from error
            if isinstance(error, self._torch.cuda.OutOfMemoryError):
                raise InfrastructureError(f"{wanted}: {_line(error)}") from error
            raise UserError(f"embed.model: {wanted} cannot be loaded: {_line(error)}") from error
        except Exception as error:
            # safetensors has its own exception type, which derives from Exception alone.
            if type(error).__name__ == "SafetensorError":
                raise UserError(f"embed.pretrained: {wanted}: not a safetensors file: {_line(error)}") from error
            raise
        for warning in caught:
            log.warning("%s: %s", source.name, _line(warning.message))
        return model.eval(), transform

    def tokenize(self, captions: Sequence[str]) -> Any:
        """Token ids on the device, int64 [N, context]; longer captions are cut as open_clip cuts them."""
        return self._tokenizer(list(captions)).to(self.device)

    def encode(self, pixels: Sequence[Any], captions: Sequence[str]) -> Embeddings:
        """Encodes one batch.

        Args:
            pixels: N tensors as `transform` returns them.
            captions: N strings.

        Raises:
            D2PruneError: an embedding is not finite.
        """
        torch = self._torch
        with torch.inference_mode():
            batch = torch.stack(list(pixels)).to(device=self.device, dtype=self._input_dtype)
            image_ND = self._unit(self._model.encode_image(batch))
            text_ND = self._unit(self._model.encode_text(self.tokenize(captions)))
        score_N = (image_ND.astype(np.float64) * text_ND).sum(axis=1)
        if not np.isfinite(score_N).all():
            raise D2PruneError(
                f"the model gives embeddings that are not finite in {self.precision}; try embed.precision=fp32"
            )
        return Embeddings(image_ND.astype(np.float16), text_ND.astype(np.float16), score_N.astype(np.float32))

    def _unit(self, features: Any) -> npt.NDArray[np.float32]:
        unit = self._torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        return np.asarray(unit, dtype=np.float32)


def _line(error: object) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
