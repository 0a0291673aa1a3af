"""Run several CLIP encoders over the same batches.

Each image is read and decoded once, and resized once per size. One encoder is the plain case. A
slot holds the pixels of each distinct preprocessing, one after the other. Each encoder gets the
batches that it would get in a run with that model alone, through the same calls, so its embeddings
are the same bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.decoder import DecodedSample
from d2prune.embed.decode.resize import Method
from d2prune.embed.model.encoder import ClipEncoder, Embeddings, PendingBatch
from d2prune.embed.model.sources import ModelSource


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
        dimensions: D of each model.
        device: of all models.
        precision: of all models.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        precision: str,
        device: str,
        resize: Method,
        compiled_rows: int = 0,
    ) -> None:
        """Load the models; arguments and errors as for `ClipEncoder`."""
        self.encoders = tuple(
            ClipEncoder(source, precision, device, resize=resize, compiled_rows=compiled_rows)
            for source in sources
        )
        self.preprocesses = tuple(dict.fromkeys(encoder.preprocess for encoder in self.encoders))
        self._bounds = np.cumsum([0, *(preprocess.n_bytes for preprocess in self.preprocesses)]).tolist()
        self.n_bytes: int = self._bounds[-1]
        self.dimensions = tuple(encoder.dimension for encoder in self.encoders)
        self.device, self.precision = self.encoders[0].device, self.encoders[0].precision

    @property
    def max_rows(self) -> int | None:
        """Samples that fit into the device's memory at a time; None until a batch did not fit."""
        return min(
            (encoder.max_rows for encoder in self.encoders if encoder.max_rows is not None), default=None
        )

    def gather(self, pixels: npt.NDArray[np.uint8], slots: Sequence[int]) -> list[Any]:
        """Copy the pixels in `slots` to one batch for each of `preprocesses`; see `ClipEncoder.gather`."""
        batches = []
        for preprocess, start, stop in zip(self.preprocesses, self._bounds, self._bounds[1:], strict=False):
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
