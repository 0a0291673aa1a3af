"""Several CLIP encoders over the same batches: every picture is read and decoded once, and made once into each size.

One encoder is the plain case. A slot holds the pixels of each different preprocessing, one after
the other. Each encoder gets the batches it would get alone, by the same calls, so its embeddings
are the same to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from d2prune.embed.decode.decoder import Prepared
from d2prune.embed.decode.resize import Method
from d2prune.embed.model.encoder import ClipEncoder, Embeddings, Flight
from d2prune.embed.model.names import ModelSource


@dataclass(frozen=True)
class Flights:
    """A batch under way in every model; as `clip.Flight`."""

    flights: tuple[Flight, ...]

    def settle(self) -> list[Embeddings]:
        """Waits for the batch; one result per model. Raises D2PruneError: an embedding is not finite."""
        return [flight.settle() for flight in self.flights]

    @property
    def seconds(self) -> float:
        """Time that the device was busy with this batch; valid after `settle`."""
        return sum(flight.seconds for flight in self.flights)

    @property
    def cut(self) -> bool:
        """Whether a model took the batch in pieces."""
        return any(len(flight.pieces) > 1 for flight in self.flights)


class ModelsAtOnce:
    """Loaded models, in the order given. One thread at a time may use them.

    Attributes:
        encoders: one per model.
        preprocesses: each different one once, in the order of the pixels in a slot.
        n_bytes: of a slot.
        dimensions: D of each model.
        device, precision: of all.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        precision: str,
        device: str,
        resize: Method,
        compiled_rows: int = 0,
    ) -> None:
        """Loads the models; arguments and errors as of `ClipEncoder`."""
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
    def fits(self) -> int | None:
        """Samples that every model takes at a time, where one did not fit into the device's memory."""
        return min(
            (encoder.largest for encoder in self.encoders if encoder.largest is not None), default=None
        )

    def gather(self, pixels: npt.NDArray[np.uint8], slots: Sequence[int]) -> list[Any]:
        """A batch of its own memory for each of `preprocesses`; see `ClipEncoder.gather`."""
        batches = []
        for preprocess, start, stop in zip(self.preprocesses, self._bounds, self._bounds[1:], strict=False):
            encoder = next(encoder for encoder in self.encoders if encoder.preprocess == preprocess)
            batches.append(encoder.gather(pixels[:, start:stop], slots))
        return batches

    def launch(self, batches: Sequence[Any], samples: Sequence[Prepared]) -> Flights:
        """Starts the batch in every model.

        Args:
            batches: from `gather`.
            samples: whose pixels these are.

        Raises:
            InfrastructureError: as `ClipEncoder.launch`.
        """
        flights = []
        for index, encoder in enumerate(self.encoders):
            pixels = batches[self.preprocesses.index(encoder.preprocess)]
            flights.append(encoder.launch(pixels, self._tokens(index, samples)))
        return Flights(tuple(flights))

    def _tokens(self, index: int, samples: Sequence[Prepared]) -> Any:
        encoder = self.encoders[index]
        if not all(sample.tokens for sample in samples):
            return encoder.tokenize([sample.caption for sample in samples])
        return encoder.as_tokens(b"".join(sample.tokens[index] for sample in samples), len(samples))
