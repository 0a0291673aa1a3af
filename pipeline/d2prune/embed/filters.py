"""Filters on captions and images, applied before an image is decoded or a row of a table is imported.

They are those of DataComp's baselines. Each is off unless set. Samples they remove are counted as
`filtered`, separately from those that could not be read.
"""

from dataclasses import dataclass

from d2prune.embed import language
from d2prune.embed.caption_limit import cut_caption
from d2prune.embed.word_list import contains_word
from d2prune.inputs import rejects
from d2prune.inputs.rejects import SampleRejected


@dataclass(frozen=True)
class Filters:
    """What a sample must have.

    Attributes:
        min_words: words of the caption, separated by white space.
        min_characters: characters of the caption; of a tar, without leading and trailing white space.
        min_image_side: pixels of the shorter side.
        max_aspect_ratio: longer side divided by shorter side.
        words: SHA-256 of the list of which a caption must contain a word.
        language: of the caption, a code of `language.CODES`; see also `cut_caption`.
    """

    min_words: int | None = None
    min_characters: int | None = None
    min_image_side: int | None = None
    max_aspect_ratio: float | None = None
    language: str | None = None
    words: str | None = None

    @property
    def read_captions(self) -> bool:
        """Whether a filter reads captions."""
        return any(
            rule is not None for rule in (self.min_words, self.min_characters, self.language, self.words)
        )

    @property
    def read_sizes(self) -> bool:
        """Whether a filter reads the sizes of images."""
        return self.min_image_side is not None or self.max_aspect_ratio is not None

    def setup(self) -> None:
        """Load what the filters need; raise UserError if it is not installed."""
        if self.language is not None:
            language.check(self.language, "filter.language")

    def check_caption(self, caption: str, words: frozenset[str] = frozenset()) -> None:
        """Raise `SampleRejected` if the caption is too short, in another language or without a listed word.

        Args:
            caption: the caption.
            words: the list with the checksum `self.words`; see `word_file.read_words`.
        """
        if self.min_words is not None and (n_words := len(caption.split())) < self.min_words:
            detail = f"{n_words} words, filter.min_words is {self.min_words}"
            raise SampleRejected(rejects.FILTERED_WORDS, detail)
        if self.min_characters is not None and len(caption) < self.min_characters:
            detail = f"{len(caption)} characters, filter.min_characters is {self.min_characters}"
            raise SampleRejected(rejects.FILTERED_CHARACTERS, detail)
        if self.words is not None and not contains_word(caption, words):
            raise SampleRejected(rejects.FILTERED_NO_WORD, f"none of {len(words):,} words of filter.words")
        # Last, since it is the most expensive.
        if self.language is None:
            return
        if (found := language.language_of(cut_caption(caption))) != self.language:
            detail = f"detected as {found}, filter.language is {self.language}"
            raise SampleRejected(rejects.FILTERED_LANGUAGE, detail)

    def check_image(self, width: int | None, height: int | None) -> None:
        """Raise `SampleRejected` if the image is too small or too narrow, or its size is unknown."""
        if not self.read_sizes:
            return
        if width is None or height is None:
            detail = "no width and height of the image in the table"
            raise SampleRejected(rejects.FILTERED_IMAGE_SIDE, detail)
        short, long = sorted((width, height))
        if self.min_image_side is not None and short < self.min_image_side:
            detail = f"{width} x {height} pixels, filter.min_image_side is {self.min_image_side}"
            raise SampleRejected(rejects.FILTERED_IMAGE_SIDE, detail)
        if self.max_aspect_ratio is not None and long > self.max_aspect_ratio * short:
            detail = f"{width} x {height} pixels, filter.max_aspect_ratio is {self.max_aspect_ratio:g}"
            raise SampleRejected(rejects.FILTERED_ASPECT_RATIO, detail)
