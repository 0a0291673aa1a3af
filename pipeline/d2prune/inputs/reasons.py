"""Why a sample was read but not embedded: the closed vocabulary of the `reason` column of the rejects table.

Each reject row stands for one sample that the books count as read; `detail` says what was found.
"""

IMAGE_MISSING = "image-missing"
"""The sample has no member with an image extension (jpg, jpeg, png, webp)."""

IMAGE_TRUNCATED = "image-truncated"
"""The image starts as a known format and ends too early."""

IMAGE_UNDECODABLE = "image-undecodable"
"""The bytes are not an image we read (SVG, HTML, junk), or the decoder refuses them."""

IMAGE_TOO_LARGE = "image-too-large"
"""The image member exceeds the byte limit, or its header announces more pixels than `max_pixels`; it was not decoded.

Also used where the image is so narrow that the model's own resize would exceed `max_pixels`.
"""

IMAGE_CRASHED_DECODER = "image-crashed-decoder"
"""The decoder's process did not survive this image, twice: bad bytes that a C library does not catch, or no memory."""

IMAGE_TIMEOUT = "image-timeout"
"""The image was not decoded within `embed.image_timeout` seconds, twice."""

CAPTION_MISSING = "caption-missing"
"""The sample has no txt member."""

CAPTION_EMPTY = "caption-empty"
"""The caption is nothing but white space."""

CAPTION_TOO_LARGE = "caption-too-large"
"""The txt member exceeds the byte limit; it was not loaded."""

FIELD_MISSING = "field-missing"
"""The json has no number under a name that `embed.fields` declares as one."""

TAR_TRUNCATED = "tar-truncated"
"""The tar ends inside this sample. `key` is empty where the cut left no name to read."""

TAR_CORRUPT = "tar-corrupt"
"""A stretch of bytes that is no valid tar header was skipped. One row per stretch, however many samples it held."""

TAR_EMPTY = "tar-empty"
"""The file has no bytes at all: no tar program writes that, so an upload most likely failed."""

FILTERED_WORDS = "filtered-words"
"""The caption has fewer words than `filter.min_words`."""

FILTERED_CHARACTERS = "filtered-characters"
"""The caption has fewer characters than `filter.min_characters`."""

FILTERED_IMAGE_SIDE = "filtered-image-side"
"""The image's shorter side has fewer pixels than `filter.min_image_side`."""

FILTERED_ASPECT_RATIO = "filtered-aspect-ratio"
"""The image's longer side is more than `filter.max_aspect_ratio` times the shorter one."""

FILTERED_LANGUAGE = "filtered-language"
"""The caption is taken for another language than `filter.language`."""

FILTERS = frozenset(
    {FILTERED_WORDS, FILTERED_CHARACTERS, FILTERED_IMAGE_SIDE, FILTERED_ASPECT_RATIO, FILTERED_LANGUAGE}
)
"""Samples that could be read and are not wanted: booked as `filtered`, not as `rejected`."""

EMBEDDING_INVALID = "embedding-invalid"
"""The table has no embedding for the row, or one without direction: all zeros, NaN, infinite, of another length."""

SCORE_MISSING = "score-missing"
"""The table has no CLIP score for the row, or one that is not finite."""

UID_INVALID = "uid-invalid"
"""The table's uid is not 32 hex digits."""

ALL = FILTERS | frozenset(
    {
        IMAGE_MISSING,
        IMAGE_TRUNCATED,
        IMAGE_UNDECODABLE,
        IMAGE_TOO_LARGE,
        IMAGE_CRASHED_DECODER,
        IMAGE_TIMEOUT,
        CAPTION_MISSING,
        CAPTION_EMPTY,
        CAPTION_TOO_LARGE,
        FIELD_MISSING,
        TAR_TRUNCATED,
        TAR_CORRUPT,
        TAR_EMPTY,
        EMBEDDING_INVALID,
        SCORE_MISSING,
        UID_INVALID,
    }
)
"""Every reason that may appear in a rejects table."""
