"""The CLIP encoder: turns a batch of pixels and captions into unit embeddings and their cosine.

One process, one model, one device. The same batch gives the same bits: inference mode, no random
weights, and one thread on a CPU, since a matrix product split over other thread counts may round
differently. Embeddings equal those of open_clip's own `encode_image(..., normalize=True)` loop over
the same batches: pixels arrive as uint8 and are normalised on the device, by the same IEEE operations
in the same order.

On a GPU, `launch` returns while the batch is still being computed: copies from pinned memory overlap
with the kernels of the previous batch, and results are copied back as soon as they are ready.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from d2prune.embed.decode.resize import Pixels, Preprocess
from d2prune.embed.model.loading import format_error, load_model, load_tokenizer
from d2prune.embed.model.sources import ModelSource, import_open_clip
from d2prune.errors import D2PruneError, InfrastructureError, UserError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of N samples in D dimensions.

    Attributes:
        image_ND: float16, unit norm.
        text_ND: float16, unit norm.
        clip_score_N: float32 cosine of the unrounded float32 embeddings, summed in float64.
    """

    image_ND: npt.NDArray[np.float16]
    text_ND: npt.NDArray[np.float16]
    clip_score_N: npt.NDArray[np.float32]


class ClipEncoder:
    """A loaded model with its own preprocessing and tokenizer. One thread at a time may use it.

    Attributes:
        dimension: D of the joint embedding.
        preprocess: image -> the uint8 pixels [H, W, 3] that the model takes.
        transform: open_clip's own preprocessing, RGB image -> float32 [3, H, W] tensor.
        precision: fp32, bf16 or fp16, with `auto` resolved.
        device: `cpu` or `cuda`.
        max_rows: samples that fit into the device's memory at a time; None until a batch did not fit.
        copy_stream: of a GPU, for copies to it; None on a CPU.
    """

    def __init__(
        self,
        source: ModelSource,
        precision: str = "auto",
        device: str = "auto",
        threads: int = 1,
        compiled_rows: int = 0,
    ) -> None:
        """Load the model.

        Args:
            source: see `sources.resolve`.
            precision: one of `PRECISIONS`; auto is fp32 on a CPU, bf16 on a GPU that supports it, else fp16.
            device: `cpu` or `cuda`; `auto` is a GPU if there is one.
            threads: torch threads on a CPU; a count other than 1 may change the last bits.
            compiled_rows: compile the model for batches of this many rows, and pad smaller batches to
                it; 0: do not compile.

        Raises:
            UserError: see `load_model`; or the model cannot be compiled here.
            InfrastructureError: see `load_model`.
            D2PruneError: pixels would differ from those of open_clip's preprocessing.
        """
        open_clip = import_open_clip()
        import torch

        self._torch, self._version = torch, open_clip.__version__
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._threads, self._thread = threads, threading.local()
        self._set_threads()
        self.max_rows: int | None = None
        self.precision = self._resolve_precision(precision)
        self._model, self.transform = load_model(open_clip, source, self.precision, self.device)
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
        )
        # Tensors, since a GPU divides by a Python number by multiplying with its reciprocal, which rounds
        # differently.
        self._scale, self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(-1, 1, 1)
            for values in ([255.0], cfg["mean"], cfg["std"])
        )
        on_gpu = self.device == "cuda"
        self.copy_stream: Any = torch.cuda.Stream() if on_gpu else None  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            self.dimension = int(self._model.encode_text(self.tokenize(["a"]).to(self.device)).shape[-1])
        self._check_pixels()
        self._rows = compiled_rows
        if compiled_rows:
            self._compile(source.name)

    def _compile(self, name: str) -> None:
        """Compile both towers and run them once, so that a missing compiler is found before any embedding."""
        # With dynamic shapes, torch would specialise on the first batches it sees, so that bits would
        # depend on the order of shards.
        for method in ("encode_image", "encode_text"):
            compiled = self._torch.compile(getattr(self._model, method), dynamic=False)
            setattr(self._model, method, compiled)
        start, shape = time.monotonic(), (self._rows, self.preprocess.height, self.preprocess.width, 3)
        try:
            self.launch(
                self._torch.zeros(shape, dtype=self._torch.uint8), self.tokenize(["a"] * self._rows)
            ).wait()
        except D2PruneError:
            raise
        except Exception as error:
            # Compilers raise a dozen kinds of exceptions.
            raise UserError(
                f"embed.compile: {name} cannot be compiled on this machine's {self.device}; "
                f"expected a C++ compiler{'' if self.device == 'cpu' else ' and Triton'}: "
                f"{format_error(error)}"
            ) from error
        log.info("%s compiled for batches of %d in %.0f s", name, self._rows, time.monotonic() - start)

    def _compiled_batch_rows(self) -> int:
        """Return the rows of every pass of a compiled model; 0 if the model is not compiled."""
        return min(self._rows, self.max_rows or self._rows)

    def _pad_rows(self, rows: Any) -> Any:
        """Repeat the last row up to the number of rows that the model is compiled for."""
        missing = self._compiled_batch_rows() - len(rows)
        if missing <= 0:
            return rows
        return self._torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])

    def _set_threads(self) -> None:
        """Set torch's thread count for the calling thread, once: OpenMP keeps it per thread."""
        if self.device == "cpu" and not getattr(self._thread, "is_set", False):
            self._torch.set_num_threads(self._threads)
            self._thread.is_set = True

    def _check_pixels(self) -> None:
        """Compare `preprocess` with open_clip's own on a few shapes: library versions may differ."""
        rng = np.random.default_rng(0)
        for height, width in (
            (97, 333),
            (401, 250),
            (900, 300),
            (self.preprocess.height, self.preprocess.width),
        ):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            found = self._torch.from_numpy(self.preprocess(Pixels.of(image)))
            ours = self.normalise(found.to(self.device)[None])
            theirs = self.transform(image).to(self.device, self._input_dtype)
            if not self._torch.equal(ours[0], theirs):
                raise D2PruneError(
                    f"pixels of a {width} x {height} image differ from those of open_clip {self._version}'s "
                    "preprocessing; this version of open_clip, torchvision or Pillow is not supported"
                )

    def _resolve_precision(self, precision: str) -> str:
        if precision not in PRECISIONS:
            raise UserError(f"embed.precision = {precision}: expected one of {', '.join(PRECISIONS)}")
        if precision != "auto":
            return precision
        if self.device == "cpu":
            return "fp32"
        return "bf16" if self._torch.cuda.is_bf16_supported() else "fp16"

    def tokenize(self, captions: Sequence[str]) -> Any:
        """Return token ids, int64 [N, context] on the CPU; see `CaptionTokenizer`."""
        return self._tokenizer(captions)

    def join_tokens(self, data: bytes, rows: int) -> Any:
        """Return the token ids of `rows` captions from the joined bytes of `DecodedSample.tokens`."""
        return self._torch.frombuffer(bytearray(data), dtype=self._torch.int64).view(rows, -1)

    def normalise(self, pixels: Any) -> Any:
        """Convert uint8 [N, H, W, 3] on the device to the model's input [N, 3, H, W], as torchvision does."""
        x = pixels.permute(0, 3, 1, 2).contiguous().to(self._torch.float32)
        return x.div_(self._scale).sub_(self._mean).div_(self._std).to(self._input_dtype)

    def gather(self, pixels: npt.NDArray[np.uint8], rows: Sequence[int]) -> Any:
        """Copy rows of `pixels` [slots, bytes] to a batch [N, H, W, 3] (in pinned memory for a GPU)."""
        torch = self._torch
        batch = torch.empty((len(rows), pixels.shape[1]), dtype=torch.uint8, pin_memory=self.device == "cuda")
        torch.index_select(torch.from_numpy(pixels), 0, torch.tensor(rows), out=batch)
        return batch.view(len(rows), self.preprocess.height, self.preprocess.width, 3)

    def encode(self, pixels: npt.NDArray[np.uint8], captions: Sequence[str]) -> Embeddings:
        """Encode one batch and wait for it.

        Args:
            pixels: uint8 [N, H, W, 3], from `preprocess`.
            captions: N strings.

        Raises:
            D2PruneError: an embedding is not finite.
        """
        return self.launch(self._torch.from_numpy(pixels), self.tokenize(captions)).wait()

    def launch(self, pixels: Any, tokens: Any) -> "PendingBatch":
        """Start a batch; on a CPU it is complete when this returns.

        A batch that exceeds the device's memory is halved until it fits; later batches are split into
        pieces of that size from the start.

        Args:
            pixels: uint8 [N, H, W, 3] on the CPU, see `gather`, or on the device; must not change
                before `wait`.
            tokens: int64 [N, context] on the CPU.

        Raises:
            InfrastructureError: a single sample does not fit into the device's memory.
        """
        self._set_threads()
        remaining, pieces = [(pixels, tokens)], list[_Piece]()
        while remaining:
            part, part_tokens = remaining.pop()
            n = len(part)
            if self.max_rows is None or n <= self.max_rows:
                try:
                    pieces.append(self._forward(part, part_tokens))
                    continue
                except self._torch.OutOfMemoryError as error:
                    tried = max(n, self._compiled_batch_rows())
                    if tried == 1:
                        raise InfrastructureError(
                            f"one sample exceeds the memory of {self.device}: {error}"
                        ) from error
                    self.max_rows = tried // 2
                # After the except block, since the error keeps the tensors of the failed pass alive.
                log.warning(
                    "a batch of %d exceeds the memory of %s; continuing with batches of %d",
                    tried,
                    self.device,
                    self.max_rows,
                )
                if self.device == "cuda":
                    self._torch.cuda.empty_cache()
            starts = range(0, n, self.max_rows)
            remaining += [
                (part[at : at + self.max_rows], part_tokens[at : at + self.max_rows])
                for at in reversed(starts)
            ]
        return PendingBatch(tuple(pieces), self.precision)

    def _forward(self, pixels: Any, tokens: Any) -> "_Piece":
        torch, n = self._torch, len(pixels)
        start = time.perf_counter()
        pixels, tokens = self._pad_rows(pixels), self._pad_rows(tokens)
        with torch.inference_mode():
            if self.copy_stream is None:
                image, text = self._embed(pixels, tokens)
                return _Piece(image[:n], text[:n], time.perf_counter() - start)
            with torch.cuda.stream(self.copy_stream):
                pixels = pixels.to(self.device, non_blocking=True)
                tokens = tokens.pin_memory().to(self.device, non_blocking=True)
            stream = torch.cuda.current_stream()
            stream.wait_stream(self.copy_stream)
            for tensor in (pixels, tokens):
                tensor.record_stream(stream)
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record(stream)
            results = []
            for features in self._embed(pixels, tokens):
                results.append(torch.empty((n, features.shape[1]), dtype=features.dtype, pin_memory=True))
                results[-1].copy_(features[:n], non_blocking=True)
            end.record(stream)
            return _Piece(results[0], results[1], 0.0, (begin, end))

    def _embed(self, pixels: Any, tokens: Any) -> tuple[Any, Any]:
        """Return unit embeddings of images and texts, float32 [N, D]."""
        unit = self._torch.nn.functional.normalize
        image = unit(self._model.encode_image(self.normalise(pixels)).float(), dim=-1)
        return image, unit(self._model.encode_text(tokens).float(), dim=-1)

    def encode_query(self, text: str | None = None, pixels: Any = None) -> Any:
        """Return the unit embedding of one text or one image, float32 [1, D]; the other is None.

        Args:
            text: the text.
            pixels: of the image, `preprocess.n_bytes` uint8.
        """
        self._set_threads()
        unit = self._torch.nn.functional.normalize
        with self._torch.inference_mode():
            if pixels is None:
                found = self._model.encode_text(self.tokenize([text or ""]).to(self.device))
            else:
                shape = (1, self.preprocess.height, self.preprocess.width, 3)
                rows = self._torch.from_numpy(pixels).to(self.device).reshape(shape)
                found = self._model.encode_image(self.normalise(rows))
            return unit(found.float(), dim=-1).cpu().numpy()


@dataclass(eq=False)
class _Piece:
    """Results of one forward pass; complete once the GPU has passed `events` (begin, end)."""

    image: Any
    text: Any
    seconds: float
    events: tuple[Any, Any] | None = None

    def wait(self) -> None:
        if self.events is not None:
            self.events[1].synchronize()
            self.seconds, self.events = self.events[0].elapsed_time(self.events[1]) / 1e3, None


@dataclass(frozen=True)
class PendingBatch:
    """A batch in flight: one piece, or several where it did not fit into the device's memory."""

    pieces: tuple[_Piece, ...]
    precision: str

    def wait(self) -> Embeddings:
        """Wait for the batch and return its embeddings.

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
                f"the model's embeddings are not finite in {self.precision}; try embed.precision=fp32"
            )
        return Embeddings(image_ND.astype(np.float16), text_ND.astype(np.float16), score_N.astype(np.float32))

    @property
    def seconds(self) -> float:
        """Time that the device worked on this batch; valid after `wait`."""
        return sum(piece.seconds for piece in self.pieces)
