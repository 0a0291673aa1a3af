"""Captions become token ids in the decode processes: at a GPU's pace that alone is a core's work and more."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.embed.clip import load_tokenizer
from pipeline.embed.decode import Decoder, Prepared, Rejected
from pipeline.embed.models import ModelSource, import_open_clip
from pipeline.inputs.tar import Sample


@dataclass
class Tokenising:
    """A `Decoder` that also fills `Prepared.tokens`; see `decode_pool.Work`. Loads open_clip in each process."""

    decoder: Decoder
    source: ModelSource
    _tokenizer: Callable[[list[str]], Any] | None = field(default=None, init=False)

    def setup(self) -> None:
        """Load the tokenizer."""
        self.decoder.setup()
        self._tokenizer = load_tokenizer(import_open_clip(), self.source)

    def __call__(self, sample: Sample, into: memoryview) -> Prepared | Rejected:
        """Decode one sample, pixels and caption."""
        found = self.decoder(sample, into)
        if isinstance(found, Rejected) or self._tokenizer is None:
            return found
        return dataclasses.replace(found, tokens=self._tokenizer([found.caption]).numpy().tobytes())
