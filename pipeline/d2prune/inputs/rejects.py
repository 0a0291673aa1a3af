"""Rejected samples: one record, a closed vocabulary of reasons, and what each reason means.

A `Reject` is created where the fault is found (tar reader, decoder, decode pool, filters, table
import) and passes unchanged to the rejects table of the embed stage. Each one counts as one sample
read, so that the sample counts balance.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reject:
    """A sample that was read but will not be embedded.

    Attributes:
        key: its key; empty where no member name could be read.
        reason: a key of `MEANINGS`.
        detail: what was found, as `clean_line` returns it.
    """

    key: str
    reason: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", clean_line(self.detail))


def clean_line(text: str) -> str:
    """Return text as one line that UTF-8 can encode: details quote bytes of the pool."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


class SampleRejected(Exception):
    """Ends the decoding of one sample; `Decoder` catches it and returns the `Reject`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def reject(self, key: str) -> Reject:
        """Return the reject for the sample with this key."""
        return Reject(key, self.reason, self.detail)


IMAGE_MISSING = "image-missing"
IMAGE_TRUNCATED = "image-truncated"
IMAGE_UNDECODABLE = "image-undecodable"
IMAGE_TOO_LARGE = "image-too-large"
"""The image was not decoded: the member exceeds the byte limit, or its header declares more pixels
than `embed.max_pixels`. Also an image so narrow that the model's resize would exceed that limit."""
IMAGE_CRASHED_DECODER = "image-crashed-decoder"
"""Bad bytes that crash a C library, or an image that needs more memory than there is."""
IMAGE_TIMEOUT = "image-timeout"
CAPTION_MISSING = "caption-missing"
CAPTION_EMPTY = "caption-empty"
CAPTION_TOO_LARGE = "caption-too-large"
FIELD_MISSING = "field-missing"
TAR_TRUNCATED = "tar-truncated"
TAR_CORRUPT = "tar-corrupt"
"""One reject per skipped stretch of bytes, however many samples the stretch held."""
TAR_ZEROS = "tar-zeros"
"""One reject per stretch of zeros where members should be, however many samples it replaced. Zeros that
end a tar as tar programs write them are none; see `inputs.tar.header.is_end_of_archive`."""
TAR_EMPTY = "tar-empty"
"""No tar program writes an empty file, so an upload most likely failed."""
FILTERED_WORDS = "filtered-words"
FILTERED_CHARACTERS = "filtered-characters"
FILTERED_IMAGE_SIDE = "filtered-image-side"
FILTERED_ASPECT_RATIO = "filtered-aspect-ratio"
FILTERED_LANGUAGE = "filtered-language"
FILTERED_NO_WORD = "filtered-no-word"
EMBEDDING_INVALID = "embedding-invalid"
"""Includes embeddings that cannot be normalised: all zeros, NaN, infinite or of the wrong length."""
SCORE_MISSING = "score-missing"
UID_INVALID = "uid-invalid"

FILTER_REASONS = frozenset(
    {
        FILTERED_WORDS,
        FILTERED_CHARACTERS,
        FILTERED_IMAGE_SIDE,
        FILTERED_ASPECT_RATIO,
        FILTERED_LANGUAGE,
        FILTERED_NO_WORD,
    }
)
"""Readable samples that a filter removed; they are counted as `filtered`, not as `rejected`."""

MEANINGS = {
    IMAGE_MISSING: "no jpg, jpeg, png or webp member",
    IMAGE_TRUNCATED: "the image ends too early",
    IMAGE_UNDECODABLE: "not an image of a format that is read (SVG, JPEG 2000, HTML), or damaged",
    IMAGE_TOO_LARGE: "more bytes or pixels than allowed; not decoded",
    IMAGE_CRASHED_DECODER: "the decode process died on this image, twice",
    IMAGE_TIMEOUT: "not decoded within embed.image_timeout, twice",
    CAPTION_MISSING: "no txt member",
    CAPTION_EMPTY: "the caption is empty or only white space",
    CAPTION_TOO_LARGE: "more bytes than allowed; not loaded",
    FIELD_MISSING: "no finite number under a name that embed.fields declares as a number, or a text nested "
    "too deeply",
    TAR_TRUNCATED: "the tar ends inside the sample",
    TAR_CORRUPT: "bytes that are not a tar header were skipped",
    TAR_ZEROS: "zeros where members should be: never written, or overwritten",
    TAR_EMPTY: "the file is empty (0 bytes)",
    FILTERED_WORDS: "the caption has fewer words than filter.min_words",
    FILTERED_CHARACTERS: "the caption has fewer characters than filter.min_characters",
    FILTERED_IMAGE_SIDE: "the shorter side of the image has fewer pixels than filter.min_image_side, "
    "or its size is not in the table",
    FILTERED_ASPECT_RATIO: "the image is narrower than filter.max_aspect_ratio allows",
    FILTERED_LANGUAGE: "the caption is not in the language of filter.language",
    FILTERED_NO_WORD: "the caption contains no word of the list filter.words",
    EMBEDDING_INVALID: "no embedding in the table, or one of zeros, NaN, infinities or the wrong length",
    SCORE_MISSING: "no finite CLIP score in the table",
    UID_INVALID: "the uid in the table is neither 32 hex digits nor a UUID",
}
"""Every reason that may appear in a rejects table, with its meaning for reports."""
