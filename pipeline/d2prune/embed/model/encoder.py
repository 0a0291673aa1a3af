"""The CLIP encoder: a batch of pixels and captions -> unit embeddings and their cosine.

One process, one model, one device. The same batch gives the same bits: inference mode, no random
weights, and on a CPU one thread, since a matrix product split over other thread counts may round
differently. Embeddings equal those of open_clip's own `encode_image(..., normalize=True)` loop over
the same batches: pixels come as uint8 and are normalised on the device, by the same IEEE operations
in the same order.

On a GPU, `launch` returns while the batch is computed: copies run beside the kernels of the batch
before, from pinned memory, and results are copied back as soon as they are there.
"""

import dataclasses
import logging
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from d2prune.embed.decode.resize import Method, Preprocess
from d2prune.embed.model.names import ModelSource, import_open_clip
from d2prune.errors import D2PruneError, InfrastructureError, UserError

log = logging.getLogger(__name__)

# Words after which the tokenizer's memory of them is emptied: about 100 MB.
_MAX_WORDS = 500_000

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A batch of N samples in D dimensions.

    `image_ND` and `text_ND` are float16 of unit norm; `clip_score_N` is the float32 cosine of the
    unrounded float32 embeddings, summed in float64.
    """

    image_ND: npt.NDArray[np.float16]
    text_ND: npt.NDArray[np.float16]
    clip_score_N: npt.NDArray[np.float32]


class ClipEncoder:
    """A loaded model with its own preprocessing and tokenizer. One thread at a time may use it.

    Attributes:
        dimension: D of the joint embedding.
        preprocess: RGB image -> the uint8 pixels [H, W, 3] that the model wants.
        transform: open_clip's own preprocessing, RGB image -> float32 [3, H, W] tensor.
        precision: fp32, bf16 or fp16, `auto` resolved.
        device: `cpu` or `cuda`.
        largest: samples that fit into the device's memory at a time, if a batch did not.
    """

    def __init__(
        self,
        source: ModelSource,
        precision: str = "auto",
        device: str = "auto",
        threads: int = 1,
        resize: Method = "exact",
        compiled_rows: int = 0,
    ) -> None:
        """Loads the model.

        Args:
            source: from `models.resolve`.
            precision: one of `PRECISIONS`; auto is fp32 on a CPU, bf16 on a GPU that has it, else fp16.
            device: `auto` takes a GPU if there is one.
            threads: torch threads on a CPU; other counts than 1 may change the last bits.
            resize: see `resize`.
            compiled_rows: compile the model for batches of so many rows, and fill smaller ones up
                to that; 0: do not.

        Raises:
            UserError: the checkpoint does not fit the model, or is no checkpoint; or the model
                cannot be compiled here.
            InfrastructureError: weights could not be downloaded.
            D2PruneError: pixels would not be those of open_clip's preprocessing.
        """
        open_clip = import_open_clip()
        import torch

        self._torch, self._version = torch, open_clip.__version__
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._threads, self._thread = threads, threading.local()
        self._set_threads()
        self.largest: int | None = None
        self.precision = self._resolve_precision(precision)
        if source.config is not None:
            open_clip.add_model_config(source.config)
        self._model, self.transform = self._load(open_clip, source)
        self._tokenizer = load_tokenizer(open_clip, source)
        self._input_dtype = open_clip.get_input_dtype(self.precision)
        cfg = self._model.visual.preprocess_cfg
        size = cfg["size"]
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        self.preprocess = Preprocess(
            int(height),
            int(width),
            cfg["resize_mode"],
            cfg["interpolation"] == "bilinear",
            cfg["fill_color"],
            resize,
        )
        # Tensors, not numbers: a GPU divides by a number with the reciprocal, which rounds differently.
        self._scale, self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)
            for values in ([255.0], cfg["mean"], cfg["std"])
        )
        self._copies: Any = torch.cuda.Stream() if self.device == "cuda" else None  # type: ignore[no-untyped-call]
        self._words = dict(getattr(self._tokenizer, "cache", {}))
        with torch.inference_mode():
            self.dimension = int(self._model.encode_text(self.tokenize(["a"]).to(self.device)).shape[-1])
        self._check_pixels()
        self._rows = compiled_rows
        if compiled_rows:
            self._compile(source.name)

    def _compile(self, name: str) -> None:
        """Compile both towers and run them once, so that what is missing is found before anything is embedded."""
        # Of a fixed shape, as one that adapts is chosen by what came first: bits would depend on
        # the order of shards.
        for method in ("encode_image", "encode_text"):
            compiled = self._torch.compile(getattr(self._model, method), dynamic=False)
            setattr(self._model, method, compiled)
        start, shape = time.monotonic(), (self._rows, self.preprocess.height, self.preprocess.width, 3)
        try:
            self.launch(
                self._torch.zeros(shape, dtype=self._torch.uint8), self.tokenize(["a"] * self._rows)
            ).settle()
        except D2PruneError:
            raise
        except Exception as error:
            # Compilers fail with exceptions of a dozen kinds.
            raise UserError(
                f"embed.compile: {name} cannot be compiled on this machine's {self.device}, which needs a C++ compiler"
                f"{'' if self.device == 'cpu' else ' and Triton'}; leave it out, or see: {_line(error)}"
            ) from error
        log.info("%s compiled for batches of %d in %.0f s", name, self._rows, time.monotonic() - start)

    def _compiled_for(self) -> int:
        """Rows of every pass of a compiled model; 0 of another."""
        return min(self._rows, self.largest or self._rows)

    def _whole(self, rows: Any) -> Any:
        """The rows, the last one repeated up to the number that the model is compiled for."""
        missing = self._compiled_for() - len(rows)
        if missing <= 0:
            return rows
        return self._torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])

    def _set_threads(self) -> None:
        """Set torch's thread count in a thread that is new here: OpenMP keeps it per thread."""
        if self.device == "cpu" and not getattr(self._thread, "known", False):
            self._torch.set_num_threads(self._threads)
            self._thread.known = True

    def _check_pixels(self) -> None:
        """Compare `preprocess` with open_clip's own on a few shapes: other versions may round differently."""
        exact = dataclasses.replace(self.preprocess, method="exact")
        rng = np.random.default_rng(0)
        for height, width in ((97, 333), (401, 250), (self.preprocess.height, self.preprocess.width)):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            ours = self.normalise(
                self._torch.from_numpy(np.asarray(exact(image)).copy()).to(self.device)[None]
            )
            theirs = self.transform(image).to(self.device, self._input_dtype)
            if not self._torch.equal(ours[0], theirs):
                raise D2PruneError(
                    f"pixels of a {width} x {height} image are not those of open_clip {self._version}'s preprocessing; "
                    "this version of open_clip, torchvision or Pillow is not known here"
                )

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
            raise UserError(
                f"embed.pretrained: {wanted}: not a checkpoint of plain weights: {_line(error)}"
            ) from error
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            if "download" in str(error) or "HF Hub" in str(error):
                raise InfrastructureError(f"{wanted}: {_line(error)}") from error
            if isinstance(error, self._torch.cuda.OutOfMemoryError):
                raise InfrastructureError(f"{wanted}: {_line(error)}") from error
            raise UserError(f"embed.model: {wanted} cannot be loaded: {_line(error)}") from error
        except Exception as error:
            # safetensors has its own exception type, which derives from Exception alone.
            if type(error).__name__ == "SafetensorError":
                raise UserError(
                    f"embed.pretrained: {wanted}: not a safetensors file: {_line(error)}"
                ) from error
            raise
        for warning in caught:
            log.warning("%s: %s", source.name, _line(warning.message))
        return model.eval(), transform

    def tokenize(self, captions: Sequence[str]) -> Any:
        """Token ids, int64 [N, context] on the CPU; longer captions are cut as open_clip cuts them."""
        tokens = self._tokenizer(list(captions))
        cache = getattr(self._tokenizer, "cache", None)
        if cache is not None and len(cache) > _MAX_WORDS:
            # open_clip's tokenizer remembers every word it ever saw.
            self._tokenizer.cache = dict(self._words)  # type: ignore[attr-defined]
        return tokens

    def as_tokens(self, data: bytes, rows: int) -> Any:
        """Token ids of `rows` captions from the bytes that `tokens.Tokenising` made of each."""
        return self._torch.frombuffer(bytearray(data), dtype=self._torch.int64).view(rows, -1)

    def normalise(self, pixels: Any) -> Any:
        """uint8 [N, H, W, 3] on the device -> what the model takes, [N, 3, H, W], as torchvision computes it."""
        x = pixels.permute(0, 3, 1, 2).contiguous().to(self._torch.float32)
        return x.div_(self._scale).sub_(self._mean).div_(self._std).to(self._input_dtype)

    def gather(self, pixels: npt.NDArray[np.uint8], rows: Sequence[int]) -> Any:
        """A batch [N, H, W, 3] of its own memory (pinned where there is a GPU) from rows of `pixels` [slots, bytes]."""
        torch = self._torch
        batch = torch.empty((len(rows), pixels.shape[1]), dtype=torch.uint8, pin_memory=self.device == "cuda")
        torch.index_select(torch.from_numpy(pixels), 0, torch.tensor(rows), out=batch)
        return batch.view(len(rows), self.preprocess.height, self.preprocess.width, 3)

    def encode(self, pixels: npt.NDArray[np.uint8], captions: Sequence[str]) -> Embeddings:
        """Encodes one batch and waits for it.

        Args:
            pixels: uint8 [N, H, W, 3], from `preprocess`.
            captions: N strings.

        Raises:
            D2PruneError: an embedding is not finite.
        """
        return self.launch(self._torch.from_numpy(pixels), self.tokenize(captions)).settle()

    def launch(self, pixels: Any, tokens: Any) -> "Flight":
        """Starts a batch; on a CPU it is done when this returns.

        A batch that exceeds the device's memory is halved until it fits, and later ones are cut to
        that size at once.

        Args:
            pixels: uint8 [N, H, W, 3] on the CPU, as from `gather`; not to be changed before `settle`.
            tokens: int64 [N, context] on the CPU.

        Raises:
            InfrastructureError: a single sample does not fit into the device's memory.
        """
        self._set_threads()
        waiting, pieces = [(pixels, tokens)], list[_Piece]()
        while waiting:
            part, part_tokens = waiting.pop()
            n = len(part)
            if self.largest is None or n <= self.largest:
                try:
                    pieces.append(self._forward(part, part_tokens))
                    continue
                except self._torch.OutOfMemoryError as error:
                    tried = max(n, self._compiled_for())
                    if tried == 1:
                        raise InfrastructureError(
                            f"one sample exceeds the memory of {self.device}: {error}"
                        ) from error
                    self.largest = tried // 2
                # Here, since the error held on to the tensors of the pass that failed.
                log.warning(
                    "a batch of %d exceeds the memory of %s; going on with %d",
                    tried,
                    self.device,
                    self.largest,
                )
                if self.device == "cuda":
                    self._torch.cuda.empty_cache()
            cuts = range(0, n, self.largest)
            waiting += [
                (part[at : at + self.largest], part_tokens[at : at + self.largest]) for at in reversed(cuts)
            ]
        return Flight(tuple(pieces), self.precision)

    def _forward(self, pixels: Any, tokens: Any) -> "_Piece":
        torch, n = self._torch, len(pixels)
        start = time.perf_counter()
        pixels, tokens = self._whole(pixels), self._whole(tokens)
        with torch.inference_mode():
            if self._copies is None:
                image, text = self._features(pixels, tokens)
                return _Piece(image[:n], text[:n], time.perf_counter() - start)
            with torch.cuda.stream(self._copies):
                pixels = pixels.to(self.device, non_blocking=True)
                tokens = tokens.pin_memory().to(self.device, non_blocking=True)
            stream = torch.cuda.current_stream()
            stream.wait_stream(self._copies)
            for tensor in (pixels, tokens):
                tensor.record_stream(stream)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            results = []
            for features in self._features(pixels, tokens):
                results.append(torch.empty((n, features.shape[1]), dtype=features.dtype, pin_memory=True))
                results[-1].copy_(features[:n], non_blocking=True)
            end.record(stream)
            return _Piece(results[0], results[1], 0.0, (begin, end))

    def _features(self, pixels: Any, tokens: Any) -> tuple[Any, Any]:
        """Unit embeddings of both, float32 [N, D]."""
        unit = self._torch.nn.functional.normalize
        image = unit(self._model.encode_image(self.normalise(pixels)).float(), dim=-1)
        return image, unit(self._model.encode_text(tokens).float(), dim=-1)


@dataclass(eq=False)
class _Piece:
    """Results of one forward pass, on the CPU once `events` (begin and end on a GPU) have passed."""

    image: Any
    text: Any
    seconds: float
    events: tuple[Any, Any] | None = None

    def wait(self) -> None:
        if self.events is not None:
            self.events[1].synchronize()
            self.seconds, self.events = self.events[0].elapsed_time(self.events[1]) / 1e3, None


@dataclass(frozen=True)
class Flight:
    """A batch under way: usually one piece, more where it did not fit into the device's memory."""

    pieces: tuple[_Piece, ...]
    precision: str

    def settle(self) -> Embeddings:
        """Waits for the batch.

        Raises:
            D2PruneError: an embedding is not finite.
        """
        for piece in self.pieces:
            piece.wait()
        image_ND = np.concatenate([piece.image.numpy() for piece in self.pieces])
        text_ND = np.concatenate([piece.text.numpy() for piece in self.pieces])
        score_N = (image_ND.astype(np.float64) * text_ND).sum(axis=1)
        if not np.isfinite(score_N).all():
            raise D2PruneError(
                f"the model gives embeddings that are not finite in {self.precision}; try embed.precision=fp32"
            )
        return Embeddings(image_ND.astype(np.float16), text_ND.astype(np.float16), score_N.astype(np.float32))

    @property
    def seconds(self) -> float:
        """Time that the device was busy with this batch; valid after `settle`."""
        return sum(piece.seconds for piece in self.pieces)


def load_tokenizer(open_clip: Any, source: ModelSource) -> Callable[[list[str]], Any]:
    """The model's tokenizer: captions -> int64 [N, context].

    Raises:
        UserError: it needs a package that is missing.
        InfrastructureError: its vocabulary could not be downloaded.
    """
    if source.config is not None:
        open_clip.add_model_config(source.config)
    try:
        tokenizer: Callable[[list[str]], Any] = open_clip.get_tokenizer(source.name)
    except ImportError as error:
        raise UserError(
            f"embed.model: the tokenizer of {source.name} needs a package that is not installed ({_line(error)}); "
            "SigLIP and others need d2prune[siglip]"
        ) from error
    except OSError as error:
        # What transformers raises when the hub does not answer or has no such files.
        raise InfrastructureError(
            f"the tokenizer of {source.name} cannot be loaded: {_line(error)}"
        ) from error
    return tokenizer


def _line(error: object) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
