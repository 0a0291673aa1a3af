"""Tokenize captions in the decode processes: at a GPU's pace, tokenizing alone takes more than a core."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from d2prune.embed.decode.decoder import DecodedSample, Decoder
from d2prune.embed.model.loading import load_tokenizer
from d2prune.embed.model.sources import ModelSource, import_open_clip
from d2prune.embed.model.tokenizer import CaptionTokenizer
from d2prune.inputs.rejects import Reject
from d2prune.inputs.tar.reader import TarSample


@dataclass
class TokenizingDecoder:
    """A `Decoder` that also fills `DecodedSample.tokens`. Loads open_clip in each process."""

    decoder: Decoder
    sources: Sequence[ModelSource]
    _tokenizers: list[CaptionTokenizer] = field(default_factory=list, init=False)

    def setup(self) -> None:
        """Load each model's tokenizer."""
        self.decoder.setup()
        open_clip = import_open_clip()
        self._tokenizers = [load_tokenizer(open_clip, source) for source in self.sources]

    def __call__(self, sample: TarSample, into: memoryview) -> DecodedSample | Reject:
        """Decode one sample and tokenize its caption; see `Decoder`."""
        outcome = self.decoder(sample, into)
        if isinstance(outcome, Reject):
            return outcome
        tokens = tuple(tokenizer([outcome.caption]).numpy().tobytes() for tokenizer in self._tokenizers)
        return dataclasses.replace(outcome, tokens=tokens)
