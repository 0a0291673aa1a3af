"""Rules that samples must obey to be embedded, told before anything is decoded: DataComp's basic baseline.

Each is off unless set. What they remove is booked as `filtered`, apart from what could not be read.
"""

from dataclasses import dataclass

from d2prune.embed import language
from d2prune.inputs import reasons


class Filtered(Exception):
    """This sample breaks a rule; `reason` is from `d2prune.inputs.reasons.FILTERS`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Filters:
    """What a sample must have.

    Attributes:
        min_words: of the caption, between white space.
        min_characters: of the caption, white space at its ends not counted.
        min_image_side: pixels of the shorter side.
        max_aspect_ratio: longer side over shorter side.
        language: of the caption, a code of `language.CODES`.
    """

    min_words: int | None = None
    min_characters: int | None = None
    min_image_side: int | None = None
    max_aspect_ratio: float | None = None
    language: str | None = None

    def setup(self) -> None:
        """Loads what the rules need; raises UserError where that is not installed."""
        if self.language is not None:
            language.check(self.language, "filter.language")

    def check_caption(self, caption: str) -> None:
        """Raises `Filtered` if the caption is too short, or in another language."""
        if self.min_words is not None and (words := len(caption.split())) < self.min_words:
            raise Filtered(reasons.FILTERED_WORDS, f"{words} words, filter.min_words is {self.min_words}")
        if self.min_characters is not None and len(caption) < self.min_characters:
            detail = f"{len(caption)} characters, filter.min_characters is {self.min_characters}"
            raise Filtered(reasons.FILTERED_CHARACTERS, detail)
        # Last, as it costs most.
        if self.language is not None and (found := language.language_of(caption)) != self.language:
            raise Filtered(
                reasons.FILTERED_LANGUAGE, f"taken for {found}, filter.language is {self.language}"
            )

    def check_image(self, width: int, height: int) -> None:
        """Raises `Filtered` if the image is too small or too narrow."""
        short, long = sorted((width, height))
        if self.min_image_side is not None and short < self.min_image_side:
            detail = f"{width} x {height} pixels, filter.min_image_side is {self.min_image_side}"
            raise Filtered(reasons.FILTERED_IMAGE_SIDE, detail)
        if self.max_aspect_ratio is not None and long > self.max_aspect_ratio * short:
            detail = f"{width} x {height} pixels, filter.max_aspect_ratio is {self.max_aspect_ratio:g}"
            raise Filtered(reasons.FILTERED_ASPECT_RATIO, detail)
