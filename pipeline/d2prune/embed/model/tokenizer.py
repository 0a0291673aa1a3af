"""open_clip's tokenizers at a bounded cost per caption, with the same token ids."""

from collections.abc import Sequence
from typing import Any

from d2prune.embed.caption_limit import cut_caption
from d2prune.embed.model.byte_pairs import merge_pairs

_LONG_WORD = 64
"""Bytes of a word beyond which `merge_pairs` is faster than open_clip's `bpe`; such words are not cached."""

# Words in the tokenizer's cache after which it is emptied: about 100 MB.
_MAX_CACHED_WORDS = 500_000


class CaptionTokenizer:
    """Captions to token ids; long captions are cut by `cut_caption`, and long words encoded in O(n log n).

    The ids are those of open_clip's tokenizer for the cut caption. For its `SimpleTokenizer`, a word
    becomes at least one token, so words beyond the context are not encoded.
    """

    def __init__(self, tokenizer: Any, simple: type) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: of open_clip; its `encode` is replaced.
            simple: open_clip's `SimpleTokenizer`, the byte-pair encoder written in Python.
        """
        self._tokenizer = tokenizer
        self._cache: dict[str, str] | None = None
        # Masks choose among all tokens of a caption.
        if isinstance(tokenizer, simple) and tokenizer.reduction_fn is None:  # type: ignore[attr-defined]
            self._cache = dict(tokenizer.cache)  # type: ignore[attr-defined]
            tokenizer.encode = self._encode  # type: ignore[attr-defined]

    def __call__(self, captions: Sequence[str]) -> Any:
        """Return token ids, int64 [N, context] on the CPU."""
        tokens = self._tokenizer([cut_caption(caption) for caption in captions])
        if self._cache is not None and len(self._tokenizer.cache) > _MAX_CACHED_WORDS:
            # open_clip's tokenizer caches every word it has ever seen.
            self._tokenizer.cache = dict(self._cache)
        return tokens

    def _encode(self, text: str) -> list[int]:
        """Return the token ids of a text, at least as many as the context holds if there are that many."""
        tokenizer, ids = self._tokenizer, list[int]()
        for match in tokenizer.pat.finditer(tokenizer.clean_fn(text)):
            word = "".join(tokenizer.byte_encoder[byte] for byte in match.group().encode())
            ids += [tokenizer.encoder[piece] for piece in self._split_word(word)]
            if len(ids) >= tokenizer.context_length:
                break
        return ids

    def _split_word(self, word: str) -> list[str]:
        if len(word) <= _LONG_WORD:
            pieces: list[str] = self._tokenizer.bpe(word).split(" ")
            return pieces
        return merge_pairs([*word[:-1], word[-1] + "</w>"], self._tokenizer.bpe_ranks)
