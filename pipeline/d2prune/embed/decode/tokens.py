"""Captions become token ids in the decode processes: at a GPU's pace that alone is a core's work and more."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2prune.embed.decode.decoder import Decoder, Prepared, Rejected
from d2prune.embed.model.encoder import load_tokenizer
from d2prune.embed.model.names import ModelSource, import_open_clip
from d2prune.inputs.tar.reader import Sample


@dataclass
class Tokenising:
    """A `Decoder` that also fills `Prepared.tokens`; see `decode_pool.Work`. Loads open_clip in each process."""

    decoder: Decoder
    sources: Sequence[ModelSource]
    _tokenizers: list[Callable[[list[str]], Any]] = field(default_factory=list, init=False)

    def setup(self) -> None:
        """Load each model's tokenizer."""
        self.decoder.setup()
        open_clip = import_open_clip()
        self._tokenizers = [load_tokenizer(open_clip, source) for source in self.sources]

    def __call__(self, sample: Sample, into: memoryview) -> Prepared | Rejected:
        """Decode one sample, pixels and caption."""
        found = self.decoder(sample, into)
        if isinstance(found, Rejected):
            return found
        made = tuple(tokenizer([found.caption]).numpy().tobytes() for tokenizer in self._tokenizers)
        return dataclasses.replace(found, tokens=made)
