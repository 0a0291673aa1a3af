"""Run several CLIP encoders over the same batches.

Each image is read and decoded once, and resized once per size. One encoder is the plain case. A
slot holds the pixels of each distinct preprocessing, one after the other, or the whole image, which
is resized on the device. Each encoder gets the batches that it would get in a run with that model
alone, through the same calls, so its embeddings are the same bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.decoder import DecodedSample
from d2prune.embed.model.device_resize import WHOLE_BYTES, DeviceResizer, Source
from d2prune.embed.model.encoder import ClipEncoder, Embeddings, PendingBatch
from d2prune.embed.model.sources import ModelSource

Resize = Literal["exact", "device"]


@dataclass(frozen=True)
class PendingBatches:
    """A batch in flight in every model; see `PendingBatch`."""

    batches: tuple[PendingBatch, ...]

    def wait(self) -> list[Embeddings]:
        """Wait for the batch and return one result per model.

        Raises:
            D2PruneError: an embedding is not finite.
        """
        return [batch.wait() for batch in self.batches]

    @property
    def seconds(self) -> float:
        """Time that the device worked on this batch; valid after `wait`."""
        return sum(batch.seconds for batch in self.batches)

    @property
    def was_split(self) -> bool:
        """Whether a model processed the batch in pieces."""
        return any(len(batch.pieces) > 1 for batch in self.batches)


class MultiEncoder:
    """Loaded models, in the given order. One thread at a time may use them.

    Attributes:
        encoders: one per model.
        preprocesses: each distinct one once, in the order of their pixels in a slot.
        n_bytes: size of a slot.
        whole_bytes: size of the largest image that is resized on the device; 0: none is.
        dimensions: D of each model.
        device: of all models.
        precision: of all models.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        precision: str,
        device: str,
        resize: Resize = "exact",
        compiled_rows: int = 0,
    ) -> None:
        """Load the models; `resize` as in `EmbedParams`, other arguments and errors as for `ClipEncoder`."""
        self.encoders = tuple(
            ClipEncoder(source, precision, device, compiled_rows=compiled_rows) for source in sources
        )
        self.preprocesses = tuple(dict.fromkeys(encoder.preprocess for encoder in self.encoders))
        self._bounds = np.cumsum([0, *(preprocess.n_bytes for preprocess in self.preprocesses)]).tolist()
        self.whole_bytes = WHOLE_BYTES if resize == "device" else 0
        self.n_bytes: int = max(self._bounds[-1], self.whole_bytes)
        self.dimensions = tuple(encoder.dimension for encoder in self.encoders)
        self.device, self.precision = self.encoders[0].device, self.encoders[0].precision
        self._resizers = {
            encoder.preprocess: DeviceResizer(encoder.preprocess, self.device, encoder.copy_stream)
            for encoder in (self.encoders if self.whole_bytes else ())
        }

    @property
    def max_rows(self) -> int | None:
        """Samples that fit into the device's memory at a time; None until a batch did not fit."""
        return min(
            (encoder.max_rows for encoder in self.encoders if encoder.max_rows is not None), default=None
        )

    def gather(
        self, pixels: npt.NDArray[np.uint8], slots: Sequence[int], samples: Sequence[DecodedSample]
    ) -> list[Any]:
        """Copy what is in `slots` to one batch for each of `preprocesses`.

        Args:
            pixels: uint8 [slots, bytes] of the lane.
            slots: of the samples.
            samples: in the order of the batch.
        """
        batches = []
        for preprocess, start, stop in zip(self.preprocesses, self._bounds, self._bounds[1:], strict=False):
            if self.whole_bytes:
                sources = [
                    Source(slot, 0, sample.width, sample.height)
                    if sample.whole
                    else Source(slot, start, preprocess.width, preprocess.height)
                    for slot, sample in zip(slots, samples, strict=True)
                ]
                batches.append(self._resizers[preprocess].gather(pixels, sources))
            else:
                encoder = next(encoder for encoder in self.encoders if encoder.preprocess == preprocess)
                batches.append(encoder.gather(pixels[:, start:stop], slots))
        return batches

    def launch(self, batches: Sequence[Any], samples: Sequence[DecodedSample]) -> PendingBatches:
        """Start a batch in every model.

        Args:
            batches: see `gather`.
            samples: to which the pixels belong.

        Raises:
            InfrastructureError: see `ClipEncoder.launch`.
        """
        if self.whole_bytes:
            resized = zip(self.preprocesses, batches, strict=True)
            batches = [self._resizers[preprocess].resize(batch) for preprocess, batch in resized]
        pending = []
        for index, encoder in enumerate(self.encoders):
            pixels = batches[self.preprocesses.index(encoder.preprocess)]
            pending.append(encoder.launch(pixels, self._tokenize(index, samples)))
        return PendingBatches(tuple(pending))

    def _tokenize(self, index: int, samples: Sequence[DecodedSample]) -> Any:
        encoder = self.encoders[index]
        if not all(sample.tokens for sample in samples):
            return encoder.tokenize([sample.caption for sample in samples])
        return encoder.join_tokens(b"".join(sample.tokens[index] for sample in samples), len(samples))
