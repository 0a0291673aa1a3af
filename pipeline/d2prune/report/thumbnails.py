"""Thumbnails: reads a sample's image from its tar and encodes it as a small WebP data URI.

Nothing here fails a report: if the pool has moved, or an image is too large or cannot be decoded, the
result is empty.
"""

import base64
import io
import logging
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import ExifTags, Image

from d2prune import store
from d2prune.errors import D2PruneError
from d2prune.inputs.image_formats import FORMATS
from d2prune.inputs.tar.reader import parse_sample

log = logging.getLogger(__name__)

_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_MAX_SAMPLE_BYTES = 64 * 2**20
# After JPEG's cheap scaling during decoding; as RGBA this takes 100 MB in each thread.
_MAX_DECODED_PIXELS = 25_000_000
_SIDE = 120
_THREADS = 4
# Exif orientation -> the transposition that undoes it, applied to the small image.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageSource:
    """The location of a sample: `size` bytes at `offset` of the tar at `url`."""

    url: str
    offset: int
    size: int


def make_thumbnails(sources: Sequence[ImageSource], max_pixels: int, budget: int) -> list[str]:
    """Make thumbnails.

    Args:
        sources: the samples, most important first.
        max_pixels: larger images are not decoded.
        budget: characters that all data URIs may take together; thumbnails beyond it are dropped.

    Returns:
        Data URIs in the order of `sources`; empty for an image that is missing.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        uris = list(threads.map(lambda source: data_uri(read_image(source), max_pixels), sources))
    spent = 0
    for index, uri in enumerate(uris):
        spent += len(uri)
        if spent > budget:
            uris[index] = ""
    if missing := sum(not uri for uri in uris):
        log.warning("report: %d of %d images left out: not readable, or the page is full", missing, len(uris))
    return uris


def read_image(source: ImageSource) -> bytes:
    """Read the image file of a sample from its tar; empty if that fails."""
    if not 0 < source.size <= _MAX_SAMPLE_BYTES:
        return b""
    try:
        members = parse_sample(store.read_range(source.url, source.offset, source.size))
    except (D2PruneError, OSError, ValueError) as error:
        log.debug("cannot read image at byte %d of %s: %s", source.offset, store.redact(source.url), error)
        return b""
    return next((bytes(member.payload) for member in members if member.extension.lower() in _EXTENSIONS), b"")


def data_uri(payload: bytes, max_pixels: int) -> str:
    """`small_webp` as a data URI; empty if there is none."""
    small = small_webp(payload, max_pixels)
    return "data:image/webp;base64," + base64.b64encode(small).decode() if small else ""


def small_webp(payload: bytes, max_pixels: int, side: int = _SIDE) -> bytes:
    """Re-encode an image as a WebP of at most `side` x `side` pixels; empty if too large or undecodable."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about large images; the limit that applies is `max_pixels`.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    return b""
                image.draft("RGB", (side * 2, side * 2))
                if image.width * image.height > _MAX_DECODED_PIXELS:
                    return b""
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
                small = image.convert("RGBA")
        small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        if orientation in _TRANSPOSITIONS:
            small = small.transpose(_TRANSPOSITIONS[orientation])
        flat = Image.new("RGB", small.size, "white")
        flat.paste(small, mask=small.getchannel("A"))
        sink = io.BytesIO()
        flat.save(sink, "WEBP", quality=72, method=4)
    except Exception as error:  # Decoders raise exceptions of any type on hostile bytes.
        log.debug("cannot decode image: %s: %s", type(error).__name__, error)
        return b""
    return sink.getvalue()
